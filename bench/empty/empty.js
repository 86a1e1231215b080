// The least that a custom handler in Node can be.
require('node:http').createServer((request, response) => {
  request.resume()
  response.setHeader('Content-Type', 'application/json')
  response.end('{"Outputs":null,"Logs":[],"ReturnValue":null}')
}).listen(Number(process.env.FUNCTIONS_CUSTOMHANDLER_PORT), '127.0.0.1')
