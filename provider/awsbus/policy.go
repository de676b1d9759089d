package awsbus

import (
	"encoding/json"
	"strings"
)

// queuePolicy returns the policy of a queue: the topics may send to it, and nothing else.
func queuePolicy(queueARN string, topics []string) string {
	type m = map[string]any
	return mustJSON(m{
		"Version": "2012-10-17",
		"Statement": []m{{
			"Sid":       "carillon",
			"Effect":    "Allow",
			"Principal": m{"Service": "sns.amazonaws.com"},
			"Action":    "sqs:SendMessage",
			"Resource":  queueARN,
			"Condition": m{"ArnEquals": m{"aws:SourceArn": topics}},
		}},
	})
}

// topicsOf returns the topics that a queue's policy lets in. Policies that were not made by queuePolicy have none.
func topicsOf(policy string) []string {
	var p struct {
		Statement []struct {
			Condition map[string]map[string][]string
		}
	}
	if json.Unmarshal([]byte(policy), &p) != nil {
		return nil
	}
	var topics []string
	for _, s := range p.Statement {
		topics = append(topics, s.Condition["ArnEquals"]["aws:SourceArn"]...)
	}
	return topics
}

// filterPolicy returns what an instance takes of a topic: what is for it or for all, and not its own.
func filterPolicy(own instanceID) string {
	return mustJSON(map[string][]any{
		attrFrom: {map[string][]instanceID{"anything-but": {own}}},
		attrTo:   {toAll, own},
	})
}

func mustJSON(v any) string {
	b, err := json.Marshal(v) // sorts its keys, so that the same has the same text
	if err != nil {
		panic(err)
	}
	return string(b)
}

// queueARN returns the ARN of a queue in the partition, region and account of a topic.
func queueARN(topicARN, queue string) string {
	parts := strings.SplitN(topicARN, ":", 6) // arn:aws:sns:region:account:name
	if len(parts) != 6 {
		return ""
	}
	parts[2], parts[5] = "sqs", queue
	return strings.Join(parts, ":")
}
