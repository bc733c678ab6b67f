// An SQS that takes everything at once and keeps nothing, and the stack in which its queues are found: what is left of
// a sender's time when the service takes none. It prints its port.
package main

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
)

type entry struct {
	Id, MessageBody string
}

type request struct {
	MessageBody string
	Entries     []entry
}

func main() {
	// One thread is fast enough for all senders of a machine, and more of them would look for work on the senders' cores.
	runtime.GOMAXPROCS(1)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	url := "http://" + listener.Addr().String()
	fmt.Println(url)
	go func() { // ends with the process that started it
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go serve(connection, url)
	}
}

// serve reads HTTP/1.1 as botocore and the lab write it: a content length, and nothing sent before the answer.
func serve(connection net.Conn, url string) {
	defer connection.Close()
	reader := bufio.NewReaderSize(connection, 16<<10)
	var body, answer []byte
	for {
		length, action := 0, ""
		for {
			line, err := reader.ReadSlice('\n')
			if err != nil {
				return
			}
			line = bytes.TrimRight(line, "\r\n")
			if len(line) == 0 {
				break
			}
			name, value, _ := strings.Cut(string(line), ":")
			switch strings.ToLower(name) {
			case "content-length":
				length, _ = strconv.Atoi(strings.TrimSpace(value))
			case "x-amz-target":
				action = value[strings.LastIndexByte(value, '.')+1:]
			}
		}
		if cap(body) < length {
			body = make([]byte, length)
		}
		body = body[:length]
		if _, err := io.ReadFull(reader, body); err != nil {
			return
		}
		answer = appendAnswer(answer[:0], action, body, url)
		head := "HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: "
		if _, err := connection.Write(append([]byte(head+strconv.Itoa(len(answer))+"\r\n\r\n"), answer...)); err != nil {
			return
		}
	}
}

func appendAnswer(answer []byte, action string, body []byte, url string) []byte {
	switch action {
	case "SendMessage", "SendMessageBatch":
		var asked request
		if err := json.Unmarshal(body, &asked); err != nil {
			return append(answer, "{}"...)
		}
		if action == "SendMessage" {
			return appendTaken(append(answer, '{'), asked.MessageBody)
		}
		answer = append(answer, `{"Failed":[],"Successful":[`...)
		for i, one := range asked.Entries {
			if i > 0 {
				answer = append(answer, ',')
			}
			answer = appendTaken(append(append(append(answer, `{"Id":"`...), one.Id...), `",`...), one.MessageBody)
		}
		return append(answer, "]}"...)
	case "GetQueueAttributes":
		return append(answer, `{"Attributes":{"QueueArn":"arn:aws:sqs:us-east-1:000000000000:queue"}}`...)
	}
	if bytes.Contains(body, []byte("Action=ListStackResources")) {
		return append(answer, wrapped("ListStackResources", "<StackResourceSummaries/>")...)
	}
	outputs := ""
	for _, language := range []string{"Python", "Go"} {
		for _, kind := range []string{"FunctionName", "QueueUrl", "DeadLetterQueueUrl", "TableName", "LogGroupName"} {
			outputs += "<member><OutputKey>" + language + kind + "</OutputKey><OutputValue>" +
				url + "/000000000000/" + language + "</OutputValue></member>"
		}
	}
	return append(answer, wrapped("DescribeStacks", "<Stacks><member><StackName>lambdalab-load</StackName>"+
		"<CreationTime>2026-01-01T00:00:00Z</CreationTime><StackStatus>CREATE_COMPLETE</StackStatus><Outputs>"+
		outputs+"</Outputs></member></Stacks>")...)
}

func appendTaken(answer []byte, body string) []byte {
	digest := md5.Sum([]byte(body))
	answer = append(answer, `"MessageId":"5fea7756-0ea4-451a-a703-a558b933e274","MD5OfMessageBody":"`...)
	return append(hex.AppendEncode(answer, digest[:]), `"}`...)
}

func wrapped(action, content string) string {
	return "<" + action + "Response><" + action + "Result>" + content + "</" + action + "Result></" + action + "Response>"
}
