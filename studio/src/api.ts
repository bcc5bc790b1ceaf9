/** Our own API, /api/v1, as the page needs it: what comes and goes, and refusals as errors with one line. */

export interface Source {
  file?: string
  job?: string
  output?: number
  asset?: string
  url?: string
}

export interface Clip {
  media: Source
  start?: number
  anchor?: 'start' | 'end'
  keep?: number
  trim?: [number, number] | null
  role?: string
  box?: [number, number, number, number]
  fit?: string
}

export type Order = { task: string; prompt: string } & Record<string, unknown>

export interface Card {
  name: string
  title: string
  licence: string
  tasks: Record<string, string>
  ways: Record<string, string>
  seconds: number
  max_seconds: number
  fps: number
  sizes: [number, number][]
  still: boolean
  window: number
  words: Record<string, string[]>
  recipes: Record<string, { steps: number; guidance: number }>
  parameters: number
  sound: unknown
}

export interface Film {
  url: string
  thumbnail_url: string
  digest: string
  media_type: string
  bytes: number
  width: number | null
  height: number | null
  frames: number | null
  fps: number | null
  seconds: number | null
  sound: boolean
  seed: number | null
}

export interface Trouble {
  code: string
  message: string
}

export interface Job {
  id: string
  state: 'queued' | 'running' | 'succeeded' | 'failed' | 'cancelled'
  paused: boolean
  priority: number
  place: number
  model: string
  order: Order & Record<string, any>
  foretold: Foretold
  phase: string
  progress: number
  step: number
  steps: number
  eta: number | null
  watchable_seconds: number
  live_url: string | null
  created: number
  started: number | null
  finished: number | null
  expires: number | null
  kept: boolean
  films: Film[]
  notes: string[]
  error: Trouble | null
}

export interface Foretold {
  width: number
  height: number
  frames: number
  fps: number
  video_seconds: number
  seconds: number
  bytes: number
  count: number
}

export interface Remedy {
  says: string
  change: Record<string, unknown>
}

export interface Outlook {
  possible: boolean
  refusal: string
  remedies: Remedy[]
  foretold: Foretold | null
  credits: number
  windows: { start: number; end: number; prompt: string; steps: number; calls: number }[]
  notes: string[]
  understood: { slot: string; value: string; words: string }[]
  ignored: string[]
  open_domain: boolean
  advice: string
}

export interface Stored {
  id: string
  name: string
  media_type: string
  width: number | null
  height: number | null
  seconds: number | null
}

export interface Account {
  name: string
  scopes: string[]
  quota: Record<string, number | null>
  credits_left: number | null
}

export interface Usage {
  day: string
  model: string
  jobs: number
  video_seconds: number
  compute_seconds: number
  credits: number
}

export interface Key {
  id: string
  name: string
  scopes: string[]
  quota: Record<string, number | null>
  created: number
  revoked: number | null
  used: number | null
}

const KEPT = 'cinecanvas.key'

/** A refusal: status 0 is a server that does not answer. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly field: string | null = null,
  ) {
    super(message)
  }
}

export function key(): string {
  return sessionStorage.getItem(KEPT) ?? ''
}

/** Keep a key for as long as this tab is open; "" forgets it. */
export function keep(key: string): void {
  if (key) sessionStorage.setItem(KEPT, key)
  else sessionStorage.removeItem(KEPT)
}

async function asked(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const headers: Record<string, string> = {}
  if (key()) headers.authorization = `Bearer ${key()}`
  let sent: BodyInit | undefined
  if (body instanceof FormData) sent = body
  else if (body !== undefined) {
    headers['content-type'] = 'application/json'
    sent = JSON.stringify(body)
  }
  let answer: Response
  try {
    answer = await fetch(`/api/v1${path}`, { method, headers, body: sent, signal })
  } catch (error) {
    if (signal?.aborted) throw error
    throw new Refusal(0, 'The server does not answer.')
  }
  if (answer.ok) return answer
  const said = await answer.json().catch(() => null)
  throw new Refusal(answer.status, said?.error?.message ?? `The server answered ${answer.status}.`, said?.error?.field)
}

async function read<T>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  return (await asked(method, path, body, signal)).json()
}

export const server = {
  models: () => read<Card[]>('GET', '/models'),
  account: () => read<Account>('GET', '/account'),
  usage: () => read<Usage[]>('GET', '/usage'),
  document: () => read<any>('GET', '/openapi.json'),
  plan: (order: Order, signal: AbortSignal) => read<Outlook>('POST', '/plan', order, signal),
  create: (order: Order) => read<Job>('POST', '/jobs', order),
  jobs: (asked: { after?: string; text?: string } = {}) =>
    read<{ jobs: Job[]; more: boolean }>('GET', `/jobs?${new URLSearchParams({ limit: '100', ...asked })}`),
  job: (id: string) => read<Job>('GET', `/jobs/${id}`),
  change: (id: string, change: Record<string, unknown>) => read<Job>('PATCH', `/jobs/${id}`, change),
  cancel: (id: string) => read<Job>('POST', `/jobs/${id}/cancel`),
  forget: (id: string) => asked('DELETE', `/jobs/${id}`),
  bring: (file: File) => {
    const form = new FormData()
    form.append('file', file)
    return read<Stored>('POST', '/files', form)
  },
  keys: () => read<Key[]>('GET', '/keys'),
  usageOfKeys: () => read<(Usage & { account: string })[]>('GET', '/usage/keys'),
  makeKey: (asked: { name: string; scopes: string[]; quota: Record<string, number> }) =>
    read<{ key: Key; secret: string }>('POST', '/keys', asked),
  revokeKey: (id: string) => read<Key>('DELETE', `/keys/${id}`),
  /** The model's guess of a frame, as an object URL that its user revokes. */
  preview: async (id: string) => URL.createObjectURL(await (await asked('GET', `/jobs/${id}/preview`)).blob()),
}
