/** Echoes TCP and UDP on port 7000, IPv4 and IPv6; prints `ready`. */
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer } from 'node:net'

const server = createServer((socket) => {
  socket.on('error', () => {})
  socket.pipe(socket)
}).listen(7000, '::')
const datagrams = createSocket('udp6').bind(7000, '::')
datagrams.on('message', (message, from) => datagrams.send(message, from.port, from.address))
datagrams.on('error', () => {})
await Promise.all([once(server, 'listening'), once(datagrams, 'listening')])
console.log('ready')
