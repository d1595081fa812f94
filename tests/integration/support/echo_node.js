// One of the two parsers that ours is compared with: Node's http server, strict as by default.
// Prints its port; answers "METHOD target bytes".
const http = require('http');

const server = http.createServer((request, response) => {
  let bytes = 0;
  request.on('data', (chunk) => { bytes += chunk.length; });
  request.on('end', () => { response.end(`${request.method} ${request.url} ${bytes}\n`); });
});
server.listen(0, '127.0.0.1', () => { console.log(server.address().port); });
