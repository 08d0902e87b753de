// A client that makes the requests it is told to make with node's http: stdin and kinds as requests_of.py has them.
'use strict';
const http = require('http');
const readline = require('readline');

const INNER = 'POST /inner HTTP/1.1\r\nHost: inner\r\nContent-Length: 0\r\n\r\n';
const BODIES = {post: INNER.repeat(20), big: INNER.repeat(6000)};
const PIECES = [INNER, '0\r\n\r\n' + INNER, INNER.repeat(100)];
const HEADERS = {
	own: {TraceParent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', tracestate: 'vendor=1'},
	state: {tracestate: 'vendor=1,other=2'},
};
const agent = new http.Agent({keepAlive: true, maxSockets: 4});

function call(path, kind) {
	return new Promise((done, failed) => {
		const body = BODIES[kind];
		const headers = {...HEADERS[kind], ...(body ? {'Content-Length': body.length} : {})};
		const method = body || kind === 'chunked' ? 'POST' : 'GET';
		const request = http.request({host: '127.0.0.1', port: process.argv[2], path, method, headers, agent}, (answer) => {
			let text = '';
			answer.on('data', (piece) => { text += piece; });
			answer.on('end', () => (text === 'ok' ? done() : failed(new Error(`${path}: ${text}`))));
		});
		request.on('error', failed);
		if (kind === 'chunked')
			for (const piece of PIECES)
				request.write(piece);
		request.end(body);
	});
}

async function main() {
	let batch = [];
	for await (const line of readline.createInterface({input: process.stdin})) {
		if (line.trim()) {
			batch.push(line.split(' '));
			continue;
		}
		await Promise.all(batch.map(([path, kind]) => call(path, kind)));
		batch = [];
		console.log('done');
	}
}

main().catch((e) => { console.error(e); process.exit(1); });
