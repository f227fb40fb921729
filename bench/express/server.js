// The peer: one process of Express. Lists are read with better-sqlite3 from the same rows as ours, in the same order, and
// answered as the same JSON; uploads go to multer. A token is verified with a KeyObject, jsonwebtoken's fastest way.
// What the peer does not do: write an activity log, limit, stop gracefully, or inspect an upload.
import { createSecretKey } from 'node:crypto'
import { unlink } from 'node:fs/promises'
import express from 'express'
import jsonwebtoken from 'jsonwebtoken'
import multer from 'multer'
import { lists } from './lists.js'

const { SECRET, PORT, UPLOADS, CONSTANTS } = process.env
const key = createSecretKey(Buffer.from(SECRET))
const options = { algorithms: ['HS256'], issuer: 'short-video', audience: ['short-video-users', 'short-video-services'] }

function verified(request, response, next) {
  try {
    request.user = jsonwebtoken.verify((request.headers.authorization ?? '').slice('Bearer '.length), key, options)
  } catch {
    return response.status(401).json({ message: 'Sign in again.' })
  }
  next()
}

const app = express()
app.disable('x-powered-by')
app.disable('etag')
app.get('/health', (request, response) => response.json({ status: 'ok' }))
app.get('/verify', verified, (request, response) => response.json({ status: 'ok', service: 'express' }))
for (const [path, constant] of Object.entries(JSON.parse(CONSTANTS))) {
  app.get(path, verified, (request, response) => response.json(constant))
}

const { videos, logs } = lists(process.env)
app.get('/api/videos/stream', verified, (request, response) => {
  const { start, after, limit = '16' } = request.query
  response.json(videos(request.user.sub, { start, after, limit: Number(limit) }))
})
app.get('/api/logs/user/:id', verified, (request, response) => {
  if (request.params.id !== request.user.sub) return response.status(403).json({ message: 'Not yours.' })
  response.json(logs(request.params.id, request.query))
})

const limits = { fileSize: 50 * 1024 * 1024, files: 1 }
const inMemory = multer({ storage: multer.memoryStorage(), limits })
app.post('/memory', verified, inMemory.single('video'), (request, response) => {
  response.json({ size: request.file.size })
})
const onDisk = multer({ dest: UPLOADS, limits })
app.post('/disk', verified, onDisk.single('video'), async (request, response) => {
  response.json({ size: request.file.size })
  await unlink(request.file.path)
})

app.listen(Number(PORT), '127.0.0.1')
