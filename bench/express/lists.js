// The lists of the contract over the services' own SQLite files: any page by `start`, and by a cursor (`after`) as fast as
// the first. A cursor is the time and the number of the last row of the page before.
import { createHmac } from 'node:crypto'
import { blake2s } from '@noble/hashes/blake2.js'
import Database from 'better-sqlite3'

const LOGS_OF_A_PAGE = 100
const WINDOW = 21_600 // seconds, MEDIA_URL_WINDOW_SECONDS of ours

// `columns` of `table`, newest first; `where` chooses the rows, and its `?` are the values of a call.
function list(file, table, time, columns, where, totals) {
  const database = new Database(file, { readonly: true, fileMustExist: true })
  const page = (more, skip) =>
    database.prepare(
      `SELECT ${columns}, seq FROM ${table} WHERE ${where} ${more} ORDER BY ${time} DESC, seq DESC LIMIT ? ${skip}`,
    )
  const byStart = page('', 'OFFSET ?')
  const byCursor = page(`AND (${time}, seq) < (?, ?)`, '')
  const total = database.prepare(totals).pluck()
  const both = database.transaction((values, owner, { start = 0, after, limit }) => {
    const rows = after ? byCursor.all(...values, ...opened(after), limit) : byStart.all(...values, limit, Number(start))
    return { rows, total: total.get(owner) ?? 0 }
  })
  return (values, owner, query) => {
    const { rows, total } = both(values, owner, query)
    const last = rows.length === query.limit ? rows.at(-1) : undefined
    return { rows, total, next: last ? Buffer.from(`${last[time]} ${last.seq}`).toString('base64url') : null }
  }
}

function opened(cursor) {
  const [time, seq] = Buffer.from(cursor, 'base64url').toString().split(' ')
  return [time, Number(seq)]
}

const shortened = (time) => time.replace('.000000', '')

export function lists({ SECRET, VIDEOS, LOGS, TOTALS, PUBLIC_URL }) {
  const totals = JSON.parse(TOTALS)
  const key = createHmac('sha256', SECRET).update('media capability').digest()
  const columns = 'id, user_id, filename, title, uploaded_at, size_mb, duration, width, height'
  const videosOfAll = list(VIDEOS, 'videos', 'uploaded_at', columns, 'deleted_at IS NULL', totals.videos)
  const logColumns = 'id, user_id, action_type, service_name, description, created_at'
  const logsOfUser = list(LOGS, 'logs', 'created_at', logColumns, 'user_id = ?', totals.logs)

  // As shared/media_url.py has it: what all addresses of a page have in common is signed once.
  function minter(viewer) {
    const claim = Buffer.alloc(21)
    claim.write(viewer.replaceAll('-', ''), 'hex')
    claim.writeUIntBE((Math.floor(Date.now() / 1000 / WINDOW) + 2) * WINDOW, 16, 5)
    const begun = blake2s.create({ key, dkLen: 16 }).update(claim)
    const url = `${PUBLIC_URL}/media/${claim.toString('base64url')}`
    return (filename) => {
      const signature = begun.clone().update(Buffer.from(filename)).digest()
      return `${url}${Buffer.from(signature).toString('base64url')}/${filename}.mp4`
    }
  }

  return {
    videos(viewer, query) {
      const { rows, total, next } = videosOfAll([], '', query)
      const mint = minter(viewer)
      const videos = rows.map((video) => ({
        id: video.id,
        user_id: video.user_id,
        filename: video.filename,
        filepath: mint(video.filename),
        title: video.title,
        uploaded_at: shortened(video.uploaded_at),
        deleted_at: null,
        size_mb: video.size_mb,
        duration: video.duration,
        width: video.width,
        height: video.height,
      }))
      return { videos, total, next }
    },
    logs(user, query) {
      const { rows, total, next } = logsOfUser([user], user, { ...query, limit: LOGS_OF_A_PAGE })
      const logs = rows.map((log) => ({
        id: log.id,
        user_id: log.user_id,
        action_type: log.action_type,
        service_name: log.service_name,
        description: log.description,
        created_at: shortened(log.created_at),
      }))
      return { logs, total, next }
    },
  }
}
