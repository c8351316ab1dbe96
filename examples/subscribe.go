// Print finished texts from Go, with redigo, in a consumer group that begins with the oldest text.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"

	"github.com/gomodule/redigo/redis"
)

type assembledText struct {
	ResponseID string `json:"response_id"`
	Kind       string `json:"kind"`
	Status     string `json:"status"`
	Integrity  string `json:"integrity"`
	Text       string `json:"text"`
}

func main() {
	client, err := redis.DialURL(setting("REDIS_URL", "redis://localhost:6379"))
	if err != nil {
		log.Fatal(err)
	}
	stream := setting("DELTALOOM_PREFIX", "deltaloom") + ":assembled"
	client.Do("XGROUP", "CREATE", stream, "lake", "0", "MKSTREAM") // BUSYGROUP: the group exists already

	after := "0" // first the entries that this consumer has not acknowledged yet
	for {
		reply, err := redis.Values(client.Do("XREADGROUP", "GROUP", "lake", "lake-1",
			"COUNT", 100, "BLOCK", 1000, "STREAMS", stream, after))
		if err != nil && err != redis.ErrNil {
			log.Fatal(err)
		}
		for _, entry := range entriesOf(reply) {
			var text assembledText
			if err := json.Unmarshal([]byte(entry.fields["__data__"]), &text); err != nil {
				log.Fatal(err)
			}
			fmt.Println(text.ResponseID, text.Kind, text.Status, text.Integrity, text.Text)
			if _, err := client.Do("XACK", stream, "lake", entry.id); err != nil {
				log.Fatal(err)
			}
		}
		after = ">" // then new entries
	}
}

type entry struct {
	id     string
	fields map[string]string
}

// entriesOf returns the entries in the reply to a read of one stream.
func entriesOf(reply []interface{}) (entries []entry) {
	for _, stream := range reply {
		for _, each := range stream.([]interface{})[1].([]interface{}) {
			pair := each.([]interface{})
			id, _ := redis.String(pair[0], nil)
			fields, _ := redis.StringMap(pair[1], nil)
			entries = append(entries, entry{id, fields})
		}
	}
	return entries
}

func setting(name, fallback string) string {
	if value, found := os.LookupEnv(name); found {
		return value
	}
	return fallback
}
