// Publish a response's streaming events from Go, with redigo.
package main

import (
	"encoding/json"
	"log"
	"os"

	"github.com/gomodule/redigo/redis"
)

type event struct {
	Type           string `json:"type"`
	SequenceNumber int    `json:"sequence_number"`
	ItemID         string `json:"item_id"`
	OutputIndex    int    `json:"output_index"`
	ContentIndex   int    `json:"content_index"`
	Delta          string `json:"delta,omitempty"`
	Refusal        string `json:"refusal,omitempty"`
}

func main() {
	client, err := redis.DialURL(setting("REDIS_URL", "redis://localhost:6379"))
	if err != nil {
		log.Fatal(err)
	}
	stream := setting("DELTALOOM_PREFIX", "deltaloom") + ":deltas"

	for _, event := range []event{
		{Type: "response.refusal.delta", SequenceNumber: 1, ItemID: "msg_1", Delta: "I'm sorry,"},
		{Type: "response.refusal.delta", SequenceNumber: 2, ItemID: "msg_1", Delta: " but no."},
		{Type: "response.refusal.done", SequenceNumber: 3, ItemID: "msg_1", Refusal: "I'm sorry, but no."},
	} {
		text, _ := json.Marshal(event)
		if _, err := client.Do("XADD", stream, "*", "event", text, "response_id", "resp_go"); err != nil {
			log.Fatal(err)
		}
	}
}

func setting(name, fallback string) string {
	if value, found := os.LookupEnv(name); found {
		return value
	}
	return fallback
}
