// A client and a callee for node: the same as chain_client.py and chain_stdlib.py.
//
//   node chain.mjs server                            prints "port N"
//   node chain.mjs http|fetch BASE COUNT TAG AFTER   begins when the file AFTER is there; prints each answer as a line
import fs from 'node:fs';
import http from 'node:http';

const WORKERS = 4;
const [how, base, count, tag, after] = process.argv.slice(2);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

function values(raw, name) {
  return raw.filter((_, n) => n % 2 && raw[n - 1].toLowerCase() === name);
}

function serve() {
  const server = http.createServer((request, response) => {
    const body = JSON.stringify({
      id: request.url.split('?')[0].split('/').pop(),
      traceparent: values(request.rawHeaders, 'traceparent'),
      tracestate: values(request.rawHeaders, 'tracestate'),
    });
    response.setHeader('Content-Type', 'application/json');
    response.end(body);
  });
  server.keepAliveTimeout = 60000;
  server.listen(0, '127.0.0.1', () => console.log('port', server.address().port));
}

const agent = new http.Agent({ keepAlive: true, maxSockets: WORKERS });

function getHttp(url) {
  return new Promise((done, failed) => {
    http.get(url, { agent }, (response) => {
      let body = '';
      response.on('data', (piece) => { body += piece; });
      response.on('end', () => done(body));
    }).on('error', failed);
  });
}

async function getFetch(url) {
  return (await fetch(url)).text();
}

async function call() {
  console.log('waits');
  while (!fs.existsSync(after)) await pause(20);
  const get = how === 'fetch' ? getFetch : getHttp;
  const ids = [...Array(Number(count)).keys()];
  const bodies = [];
  await Promise.all([...Array(WORKERS)].map(async () => {
    while (ids.length) {
      const n = ids.shift();
      bodies[n] = await get(`${base}/chain/${tag}.${n}`);
    }
  }));
  console.log(bodies.join('\n'));
  await pause(300);
  process.exit(0);
}

if (how === 'server') serve();
else await call();
