// An SQS that takes everything at once and keeps nothing, and the stack in which its queues are found: what is left of
// a sender's time when the service takes none. It prints its port.
package main

import (
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
	"slices"
	"strconv"
	"strings"
	"syscall"
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
	ready, err := syscall.EpollCreate1(0)
	if err != nil {
		log.Fatal(err)
	}
	go accept(listener, ready)
	// One epoll loop: a goroutine for each connection costs half as much again for each message.
	connections := map[int32][]byte{}
	events := make([]syscall.EpollEvent, 256)
	for {
		// A service takes milliseconds, SQS some ten. What comes meanwhile is answered together: who answers each message at
		// once takes the core from a sender every time, and with two senders on two cores that would be measured.
		pause := syscall.Timespec{Nsec: 10e6}
		_ = syscall.Nanosleep(&pause, nil)
		count, err := syscall.EpollWait(ready, events, -1)
		if err != nil && err != syscall.EINTR {
			log.Fatal(err)
		}
		for _, event := range events[:max(count, 0)] {
			received, ok := serve(int(event.Fd), connections[event.Fd], url)
			if ok {
				connections[event.Fd] = received
				continue
			}
			delete(connections, event.Fd)
			_ = syscall.Close(int(event.Fd))
		}
	}
}

// accept puts every new connection before the loop.
func accept(listener net.Listener, ready int) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		file, err := connection.(*net.TCPConn).File()
		if err != nil {
			log.Fatal(err)
		}
		fd, err := syscall.Dup(int(file.Fd()))
		if err != nil {
			log.Fatal(err)
		}
		_, _ = file.Close(), connection.Close()
		event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)}
		if err := syscall.EpollCtl(ready, syscall.EPOLL_CTL_ADD, fd, &event); err != nil {
			log.Fatal(err)
		}
	}
}

// serve reads what has come and answers it once it is whole: HTTP/1.1 as botocore and the lab write it, with a content
// length, and nothing sent before the answer. It returns what has come so far, and whether the connection goes on.
func serve(fd int, received []byte, url string) ([]byte, bool) {
	received = slices.Grow(received, 64<<10)
	count, err := syscall.Read(fd, received[len(received):cap(received)])
	if err != nil || count <= 0 {
		return nil, false
	}
	received = received[:len(received)+count]
	head, body, whole := bytes.Cut(received, []byte("\r\n\r\n"))
	if !whole {
		return received, true
	}
	length, _ := strconv.Atoi(string(header(head, "content-length")))
	if len(body) < length {
		return received, true
	}
	action := header(head, "x-amz-target")
	content := appendAnswer(scratch[:0], string(action[bytes.LastIndexByte(action, '.')+1:]), body, url)
	answer := append(answered[:0], "HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: "...)
	answer = append(append(strconv.AppendInt(answer, int64(len(content)), 10), "\r\n\r\n"...), content...)
	_, err = syscall.Write(fd, answer)
	return received[:0], err == nil
}

var scratch, answered = make([]byte, 0, 64<<10), make([]byte, 0, 64<<10)

// header finds a header's value by its name in lower case.
func header(head []byte, name string) []byte {
	for len(head) > 0 {
		var line []byte
		line, head, _ = bytes.Cut(head, []byte("\r\n"))
		if len(line) > len(name) && line[len(name)] == ':' && strings.EqualFold(string(line[:len(name)]), name) {
			return bytes.TrimSpace(line[len(name)+1:])
		}
	}
	return nil
}

func appendAnswer(answer []byte, action string, body []byte, url string) []byte {
	switch action {
	case "SendMessage", "SendMessageBatch":
		if message, plain := messageBody(body); plain && action == "SendMessage" {
			return appendTaken(append(answer, '{'), message)
		}
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

// messageBody finds the one message of a request, if it has no escapes but those of quotes: JSON's decoder takes as long
// as all the rest.
func messageBody(body []byte) (string, bool) {
	_, rest, found := bytes.Cut(body, []byte(`"MessageBody"`))
	rest = bytes.TrimLeft(rest, ": ")
	if !found || len(rest) == 0 {
		return "", false
	}
	message := unescaped[:0]
	for i := 1; i < len(rest); i++ {
		switch {
		case rest[i] == '"':
			return string(message), true
		case rest[i] == '\\' && (i+1 == len(rest) || rest[i+1] != '"'):
			return "", false
		case rest[i] == '\\':
			i++
		}
		message = append(message, rest[i])
	}
	return "", false
}

var unescaped = make([]byte, 0, 64<<10)

func appendTaken(answer []byte, body string) []byte {
	digest := md5.Sum([]byte(body))
	answer = append(answer, `"MessageId":"5fea7756-0ea4-451a-a703-a558b933e274","MD5OfMessageBody":"`...)
	return append(hex.AppendEncode(answer, digest[:]), `"}`...)
}

func wrapped(action, content string) string {
	return "<" + action + "Response><" + action + "Result>" + content + "</" + action + "Result></" + action + "Response>"
}
