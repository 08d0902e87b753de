// A client and a callee in Go: the same as chain_client.py and chain_stdlib.py.
//
//	chain server                      prints "port N"; answers /chain/ID with the id and the traceparents that came
//	chain client BASE COUNT TAG AFTER begins when the file AFTER is there; prints each answer as a line
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const workers = 4

type answer struct {
	ID          string   `json:"id"`
	Traceparent []string `json:"traceparent"`
	Tracestate  []string `json:"tracestate"`
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "chain:", err)
		os.Exit(1)
	}
}

func list(values []string) []string {
	return append([]string{}, values...)
}

func serve() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	fmt.Println("port", listener.Addr().(*net.TCPAddr).Port)
	http.HandleFunc("/chain/", func(w http.ResponseWriter, r *http.Request) {
		id := strings.TrimPrefix(r.URL.Path, "/chain/")
		check(json.NewEncoder(w).Encode(answer{id, list(r.Header["Traceparent"]), list(r.Header["Tracestate"])}))
	})
	check(http.Serve(listener, nil))
}

func get(client *http.Client, url string) string {
	response, err := client.Get(url)
	check(err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	check(err)
	return strings.TrimSpace(string(body))
}

func call(base string, count int, tag, after string) {
	fmt.Println("waits")
	for {
		if _, err := os.Stat(after); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: workers}}
	ids, bodies := make(chan int), make([]string, count)
	var group sync.WaitGroup
	for n := 0; n < workers; n++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for id := range ids {
				bodies[id] = get(client, fmt.Sprintf("%s/chain/%s.%d", base, tag, id))
			}
		}()
	}
	for id := 0; id < count; id++ {
		ids <- id
	}
	close(ids)
	group.Wait()
	fmt.Println(strings.Join(bodies, "\n"))
	time.Sleep(300 * time.Millisecond)
}

func main() {
	if os.Args[1] == "server" {
		serve()
		return
	}
	count, err := strconv.Atoi(os.Args[3])
	check(err)
	call(os.Args[2], count, os.Args[4], os.Args[5])
}
