module lambdalab/cpu-quota

go 1.25

require github.com/aws/aws-lambda-go v1.54.0
