/** A draft is a Request that is still being laid: words, options, and the pieces that are known. */

import type { Card, Film, Job, Order, Source } from './api'

/** Something that lies on the strip. A picture holds one frame; a film its own length, or the part of it that is asked. */
export interface Piece {
  id: number
  media: Source
  name: string
  picture: string // URL of a small picture; "" if there is none
  seconds: number | null // null: a picture
  sound: boolean
  width: number | null
  height: number | null
  start: number
  atEnd: boolean
  trim: [number, number] | null
  keep: number
  url: string // of the film or picture itself, to be looked at
  box: [number, number, number, number] | null // x, y, width, height in fractions of the frame; null: all of it
  mask: Source | null // a picture: white is kept, black is made anew
}

export interface Cue {
  at: number
  prompt: string
}

export interface Draft {
  prompt: string
  model: string // "": the server's own choice
  seconds: number | null // null: the model's own
  still: boolean
  shape: string
  loop: boolean
  pieces: Piece[]
  cues: Cue[]
  options: Record<string, unknown> // every other field of a Request, by its name; absent: left out
}

export const empty = (): Draft => ({
  prompt: '', model: '', seconds: null, still: false, shape: '', loop: false, pieces: [], cues: [], options: {},
})

/** Fields that the page shows in a place of their own; the schema lists the rest. */
export const PLACED = ['task', 'prompt', 'model', 'seconds', 'shape', 'width', 'height', 'loop', 'clips', 'cues', 'finer']

export const lasting = (piece: Piece) => (piece.trim ? piece.trim[1] - piece.trim[0] : (piece.seconds ?? 0))

/** How long the film will be. */
export function length(draft: Draft, card: Card | undefined): number {
  const known = Math.max(0, ...draft.pieces.map((piece) => (piece.atEnd ? 0 : piece.start) + lasting(piece)))
  return Math.max(draft.seconds ?? card?.seconds ?? 2, known)
}

/** Where a piece lies, from and to (s); a picture is given the least width that can be seen. */
export function place(piece: Piece, whole: number): [number, number] {
  const long = lasting(piece)
  const start = piece.atEnd ? Math.max(0, whole - piece.start - long) : piece.start
  return [start, start + long]
}

/** The stretches of the film of which nothing is known. */
export function holes(draft: Draft, whole: number): [number, number][] {
  const spans = draft.pieces.map((piece) => place(piece, whole)).sort((a, b) => a[0] - b[0])
  const found: [number, number][] = []
  let until = 0
  for (const [start, end] of spans) {
    if (start > until + 0.05) found.push([until, start])
    until = Math.max(until, end)
  }
  if (whole > until + 0.05) found.push([until, whole])
  return found
}

/** The order that a draft comes to: words alone are a verb of their own, anything else is a canvas laid by hand. */
export function ordered(draft: Draft, card: Card | undefined): Order {
  const asked: Record<string, unknown> = { ...draft.options }
  if (draft.model) asked.model = draft.model
  if (draft.shape) asked.shape = draft.shape
  if (draft.cues.length) asked.cues = [...draft.cues].sort((a, b) => a.at - b.at)
  if (draft.still || card?.still) return { task: 'text_to_image', prompt: draft.prompt, ...asked }
  if (draft.pieces.length || draft.seconds !== null) asked.seconds = length(draft, card)
  if (!draft.pieces.length && !draft.loop) return { task: 'text_to_video', prompt: draft.prompt, ...asked }
  const first = draft.pieces.find((piece) => piece.width && piece.height)
  if (!draft.shape && !asked.width && first) asked.shape = ratio(first.width!, first.height!)
  const clips = draft.pieces.map((piece) => ({
    media: piece.media,
    start: piece.start,
    keep: piece.keep,
    ...(piece.trim ? { trim: piece.trim } : {}),
    ...(piece.atEnd ? { anchor: 'end' } : {}),
    ...(piece.box ? { box: piece.box, fit: 'stretch' } : {}),
    ...(piece.mask ? { mask: piece.mask } : {}),
  }))
  return { task: 'canvas', prompt: draft.prompt, ...asked, loop: draft.loop, clips: [...beneath(draft.pieces), ...clips] }
}

/** Films of which several parts stand in their own time lie beneath their holes too, as in the verb `retake`: decoders
 * go on from what was there, so the parts stay as they are to the bit; and all of their sound stays. */
function beneath(pieces: Piece[]): Record<string, unknown>[] {
  const offset = (piece: Piece) => round(piece.start - (piece.trim?.[0] ?? 0))
  const same = (a: Piece, b: Piece) => JSON.stringify(a.media) === JSON.stringify(b.media) && offset(a) === offset(b)
  const parts = pieces.filter((piece) => piece.trim && !piece.atEnd && !piece.box && !piece.mask && piece.keep === 1)
  return parts
    .filter((piece, i) => offset(piece) >= 0 && parts.findIndex((one) => same(one, piece)) === i && parts.some((one, j) => j > i && same(one, piece)))
    .flatMap((piece) => [
      { media: piece.media, start: offset(piece), keep: 0 },
      ...(piece.sound ? [{ media: piece.media, start: offset(piece), role: 'sound' }] : []),
    ])
}

function ratio(width: number, height: number): string {
  const divisor = (a: number, b: number): number => (b ? divisor(b, a % b) : a)
  const d = divisor(width, height)
  return `${width / d}:${height / d}`
}

/** The largest box of a piece's own shape in the middle of a frame of another. */
export function inside(piece: Piece, shape: string): [number, number, number, number] {
  const [across, down] = shape.split(':').map(Number)
  const wide = (across / down) * ((piece.height ?? 1) / (piece.width ?? 1)) // of the frame, measured in the piece
  const [w, h] = [Math.min(1, 1 / wide), Math.min(1, wide)]
  return [(1 - w) / 2, (1 - h) / 2, w, h]
}

let count = Date.now()

/** A film or picture of an earlier job as a piece. */
export function pieceOf(job: Job, output = 0): Piece {
  const film: Film = job.films[output]
  return {
    id: ++count,
    media: output ? { job: job.id, output } : { job: job.id },
    name: job.order.prompt || job.id.slice(0, 8),
    picture: film.thumbnail_url,
    seconds: film.frames && film.frames > 1 ? film.seconds : null,
    sound: film.sound,
    width: film.width,
    height: film.height,
    start: 0,
    atEnd: false,
    trim: null,
    keep: 1,
    url: film.url,
    box: null,
    mask: null,
  }
}

export function pieceOfFile(file: { id: string; name: string; width: number | null; height: number | null; seconds: number | null }, picture: string, url: string): Piece {
  return {
    id: ++count, media: { file: file.id }, name: file.name, picture, seconds: file.seconds, sound: false, width: file.width,
    height: file.height, start: 0, atEnd: false, trim: null, keep: 1, url, box: null, mask: null,
  }
}

const OPTIONS = ['negative', 'fps', 'seed', 'quality', 'order', 'steps', 'guidance', 'guided', 'rescale', 'step_cache', 'sound', 'count', 'loras']

/** What a job was asked, as far as it is about words and numbers. */
function like(job: Job): Draft {
  const asked = job.order
  const options = Object.fromEntries(OPTIONS.filter((name) => asked[name] != null).map((name) => [name, asked[name]]))
  return {
    ...empty(), prompt: asked.prompt, model: job.model, shape: asked.shape ?? '', cues: asked.cues ?? [], options,
    seconds: asked.seconds ?? null, still: asked.task === 'text_to_image', loop: !!asked.loop || asked.task === 'loop',
  }
}

const later = (draft: Draft): Draft => {
  delete draft.options.seed
  return { ...draft, cues: [], shape: '' }
}

/** Each of these is a draft over a film: the verbs of the library as pieces and holes. */
export const verbs: Record<string, (job: Job) => Draft> = {
  again: like,
  variations: (job) => {
    const draft = like(job)
    delete draft.options.seed
    draft.options.count = 4
    return draft
  },
  extend: (job) => onto(job, (piece, draft) => void (draft.seconds = lasting(piece) + 2)),
  before: (job) =>
    onto(job, (piece, draft) => {
      piece.start = 2
      draft.seconds = lasting(piece) + 2
    }),
  loop: (job) =>
    onto(job, (piece, draft) => {
      draft.seconds = lasting(piece) + 2
      draft.loop = true
    }),
  inpaint: (job) => onto(job, (piece, draft) => void (draft.seconds = lasting(piece) || null)),
  reframe: (job) =>
    onto(job, (piece, draft) => {
      const wide = (piece.width ?? 1) >= (piece.height ?? 1) * 1.2
      draft.shape = wide ? '9:16' : '16:9'
      draft.seconds = lasting(piece) || null
      piece.box = inside(piece, draft.shape)
    }),
  remix: (job) =>
    onto(job, (piece, draft) => {
      piece.keep = 0.5
      draft.seconds = lasting(piece) || null
    }),
  animate: (job) => onto(job, (_, draft) => void (draft.seconds = null)),
  retake: (job) => {
    const draft = onto(job, (piece, whole) => void (whole.seconds = lasting(piece)))
    return { ...draft, pieces: split(draft.pieces[0], draft.seconds! / 3, (2 * draft.seconds!) / 3) }
  },
}

function onto(job: Job, lay: (piece: Piece, draft: Draft) => void): Draft {
  const draft = later(like(job))
  const piece = pieceOf(job)
  draft.still = false
  draft.loop = false
  draft.pieces = [piece]
  lay(piece, draft)
  return draft
}

/** A film with a hole in it: what was there stays under the hole, for a decoder goes on from it. */
export function split(piece: Piece, from: number, to: number): Piece[] {
  const [begin, end] = piece.trim ?? [0, piece.seconds ?? 0]
  const a = Math.max(begin, Math.min(from, end))
  const b = Math.max(a, Math.min(to, end))
  const part = (trim: [number, number]): Piece => ({ ...piece, id: ++count, start: piece.start + trim[0] - begin, trim })
  return [part([begin, round(a)]), part([round(b), end])].filter((one) => lasting(one) > 0.01)
}

const round = (x: number) => Math.round(x * 100) / 100

/** The digests of all that an order is made from: an accepted order names assets, whatever it came as. */
export function sources(order: Order): Set<string> {
  const found = new Set<string>()
  const look = (value: unknown): void => {
    if (!value || typeof value !== 'object') return
    const asset = (value as Source).asset
    if (typeof asset === 'string') found.add(asset)
    Object.values(value).forEach(look)
  }
  look(order)
  return found
}

/** Whether one job made what another was made from. */
export const leads = (from: Job, into: Job) => from.films.some((film) => sources(into.order).has(film.digest))
