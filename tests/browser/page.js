// A stand-in for the existing React frontend: it makes exactly the calls that the frontend makes, in its way and order.
'use strict';

const { USER, VIDEO, STORAGE, USAGE, LOGGING } = window.env; // the five NEXT_PUBLIC_…_SERVICE_URL
const at = (id) => document.getElementById(id);

let token = null; // so the page sends `Bearer null` before login, as the frontend does
let session = null; // what it reads from the token

async function call(url, options = {}) {
  const answer = await fetch(url, {
    ...options,
    headers: { Authorization: `Bearer ${token}`, ...options.headers },
  });
  return read(answer);
}

async function post(url, body) {
  const headers = { 'Content-Type': 'application/json' };
  return read(await fetch(url, { method: 'POST', headers, body: JSON.stringify(body) }));
}

async function read(answer) {
  const body = await answer.json();
  if (!answer.ok) {
    throw new Error(body.message);
  }
  return body;
}

// What the user sees of a call: `done: …` or `refused: …`; a CORS fault or a cut connection is `lost: …`.
async function say(what) {
  at('said').textContent = '…';
  let said;
  try {
    said = `done: ${(await what()).message}`;
  } catch (error) {
    said = `${error instanceof TypeError ? 'lost' : 'refused'}: ${error.message}`;
  }
  at('said').textContent = said;
  return said;
}

function register({ email, password, username }) {
  return say(() => post(`${USER}/api/users/register`, { email, password, username }));
}

function login({ email, password }) {
  return say(async () => {
    const answer = await post(`${USER}/api/users/login`, { email, password });
    token = answer.token;
    session = JSON.parse(atob(token.split('.')[1]));
    if (typeof session.exp !== 'number' || session.exp * 1000 < Date.now()) {
      throw new Error('the session has expired');
    }
    const { user } = await call(`${USER}/api/users/user/${session.id}`);
    at('you').textContent = `${user.username} <${session.email}>`;
    await refresh();
    return answer;
  });
}

function upload(file, title) {
  return say(async () => {
    const form = new FormData();
    if (file) {
      form.append('video', file);
    }
    form.append('title', title);
    const answer = await call(`${VIDEO}/api/videos/upload`, { method: 'POST', body: form });
    await refresh();
    return answer;
  });
}

function remove(filename) {
  return say(async () => {
    const answer = await call(`${VIDEO}/api/videos/delete/${filename}`, { method: 'DELETE' });
    await refresh();
    return answer;
  });
}

function removeAll() {
  return say(async () => {
    const answer = await call(`${VIDEO}/api/videos/delete-all`, { method: 'DELETE' });
    await refresh();
    return answer;
  });
}

function play(filename) {
  return say(async () => {
    const { url } = await call(`${VIDEO}/api/videos/stream/${filename}`);
    at('player').src = url;
    await at('player').play();
    return { message: 'playing' };
  });
}

// All at once, and once each, without a retry.
async function refresh() {
  const [feed, mine, storage, today, log] = await Promise.all([
    call(`${VIDEO}/api/videos/stream?start=0`),
    call(`${VIDEO}/api/videos/user/${session.id}?start=0`),
    call(`${STORAGE}/api/storage/usage`),
    call(`${USAGE}/api/usage/daily-usage`),
    call(`${LOGGING}/api/logs/user/${session.id}?start=0`),
  ]);
  at('storage').textContent =
    `${storage.totalSizeMb.toFixed(2)} of ${storage.maxStorageMb.toFixed(2)} MB (${storage.usagePercentage}%)`;
  at('today').textContent =
    `${today.totalUsageMb.toFixed(2)} of ${today.dailyLimitMb.toFixed(2)} MB today` +
    (today.isThresholdExceeded ? ` (${today.message})` : '');
  at('feed').replaceChildren(...feed.videos.map(card));
  at('mine').replaceChildren(...mine.videos.map(card));
  at('logs').replaceChildren(...log.logs.map(line));
  return { message: 'refreshed' };
}

function card(video) {
  const thumbnail = document.createElement('img');
  thumbnail.src = video.filepath.replace('.mp4', '.jpg');
  const watch = button('Watch', () => play(video.filename));
  const erase = button('Delete', () => remove(video.filename));
  const item = document.createElement('li');
  item.dataset.title = video.title;
  item.dataset.filepath = video.filepath;
  item.append(thumbnail, `${video.title} · ${video.size_mb.toFixed(2)} MB `, watch, erase);
  return item;
}

function line(entry) {
  const item = document.createElement('li');
  item.textContent =
    `${new Date(entry.created_at).toISOString()} ${entry.service_name} ${entry.action_type} ${entry.description}`;
  return item;
}

function button(text, act) {
  const made = document.createElement('button');
  made.textContent = text;
  made.addEventListener('click', act);
  return made;
}

function onSubmit(id, act) {
  at(id).addEventListener('submit', (event) => {
    event.preventDefault();
    act(new FormData(event.target));
  });
}

onSubmit('register', (form) => register(Object.fromEntries(form)));
onSubmit('login', (form) => login(Object.fromEntries(form)));
onSubmit('upload', (form) => upload(at('upload').elements.file.files[0], form.get('title')));
at('refresh').addEventListener('click', () => say(refresh));
at('delete-all').addEventListener('click', removeAll);
