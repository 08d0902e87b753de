// A client that makes the requests it is told to make with Go's net/http: stdin and kinds as requests_of.py has them.
package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
)

const inner = "POST /inner HTTP/1.1\r\nHost: inner\r\nContent-Length: 0\r\n\r\n"

// Gives one piece a read, so that each becomes a chunk.
type pieces struct{ left []string }

func (p *pieces) Read(to []byte) (int, error) {
	if len(p.left) == 0 {
		return 0, io.EOF
	}
	n := copy(to, p.left[0])
	if p.left[0] = p.left[0][n:]; p.left[0] == "" {
		p.left = p.left[1:]
	}
	return n, nil
}

func body(kind string) io.Reader {
	switch kind {
	case "post":
		return strings.NewReader(strings.Repeat(inner, 20))
	case "big":
		return strings.NewReader(strings.Repeat(inner, 6000))
	case "chunked":
		return &pieces{[]string{inner, "0\r\n\r\n" + inner, strings.Repeat(inner, 100)}}
	}
	return nil
}

func call(client *http.Client, url, kind string) error {
	method, content := "GET", body(kind)
	if content != nil {
		method = "POST"
	}
	request, err := http.NewRequest(method, url, content)
	if err != nil {
		return err
	}
	if kind == "own" {
		request.Header["TraceParent"] = []string{"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
		request.Header["tracestate"] = []string{"vendor=1"}
	} else if kind == "state" {
		request.Header["tracestate"] = []string{"vendor=1,other=2"}
	}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && string(text) != "ok" {
		err = fmt.Errorf("%s: %q", url, text)
	}
	return err
}

func run(client *http.Client, base string, batch [][]string) {
	var all sync.WaitGroup
	room := make(chan bool, 4)
	for _, item := range batch {
		all.Add(1)
		room <- true
		go func(path, kind string) {
			defer all.Done()
			if err := call(client, base+path, kind); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			<-room
		}(item[0], item[1])
	}
	all.Wait()
	fmt.Println("done")
}

func main() {
	client := &http.Client{Transport: &http.Transport{Proxy: nil, MaxIdleConnsPerHost: 4}}
	lines := bufio.NewScanner(os.Stdin)
	var batch [][]string
	for lines.Scan() {
		if words := strings.Fields(lines.Text()); len(words) == 2 {
			batch = append(batch, words)
		} else {
			run(client, "http://127.0.0.1:"+os.Args[1], batch)
			batch = nil
		}
	}
}
