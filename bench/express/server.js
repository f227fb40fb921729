// The peer: one process of Express that answers constants, and multer for uploads. It checks a token with a KeyObject,
// which is jsonwebtoken's fastest way, and writes nothing anywhere.
import { createSecretKey } from 'node:crypto'
import { unlink } from 'node:fs/promises'
import express from 'express'
import jsonwebtoken from 'jsonwebtoken'
import multer from 'multer'

const { SECRET, PORT, UPLOADS, PAGES } = process.env
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
for (const [path, page] of Object.entries(JSON.parse(PAGES))) {
  app.get(path, verified, (request, response) => response.json(page))
}

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
