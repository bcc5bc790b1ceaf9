/** What all parts of the page share: who we are, what is served, the jobs, the draft, and where we look. */

import { keep, key, Refusal, server, type Account, type Card, type Job } from './api'
import { empty, type Draft } from './draft'
import { text } from './text'

const DRAFT = 'cinecanvas.draft'
const SOON = 700 // ms between two looks at jobs that run
const LATER = 4000

function kept<T>(name: string, otherwise: T): T {
  try {
    return { ...otherwise, ...JSON.parse(localStorage.getItem(name) ?? 'null') }
  } catch {
    return otherwise
  }
}

/** The draft that was left, without addresses: they hold for a day or for a tab. */
function taken(): Draft {
  const draft = kept(DRAFT, empty())
  return { ...draft, pieces: draft.pieces.map((piece) => ({ ...piece, url: '', picture: '' })) }
}

class Studio {
  models = $state<Card[]>([])
  fields = $state<Record<string, any>>({}) // of a canvas, as the server's own document has them
  jobs = $state<Job[]>([])
  more = $state(false)
  account = $state<Account | null>(null)
  draft = $state<Draft>(taken())
  place = $state('create')
  film = $state('') // the id of the job that is looked at
  needsKey = $state('')
  offline = $state(false)
  said = $state<{ id: number; words: string; bad: boolean }[]>([])
  ready = $state(false)
  #timer = 0
  #count = 0

  get card(): Card | undefined {
    return this.models.find((card) => card.name === this.draft.model) ?? this.models[0]
  }

  get running(): Job[] {
    const open = this.jobs.filter((job) => job.state === 'queued' || job.state === 'running')
    const turn = (job: Job) => (job.state === 'running' ? -1e9 : -job.priority)
    return open.sort((a, b) => turn(a) - turn(b) || a.place - b.place || a.created - b.created)
  }

  async begin(): Promise<void> {
    this.look()
    addEventListener('hashchange', () => this.look())
    await this.meet()
  }

  /** Ask who we are and what is served; called again when a key was given or the server came back. */
  async meet(): Promise<void> {
    clearTimeout(this.#timer)
    try {
      const [account, models, document] = await Promise.all([server.account(), server.models(), server.document()])
      this.account = account
      this.models = models
      this.fields = document.components.schemas.Canvas?.properties ?? {}
      this.needsKey = ''
      this.offline = false
      this.ready = true
    } catch (error) {
      this.trouble(error)
    }
    await this.refresh()
  }

  /** The newest jobs; what is older stays as it was seen. */
  async refresh(): Promise<void> {
    clearTimeout(this.#timer)
    try {
      if (!this.needsKey) {
        const page = await server.jobs()
        const fresh = new Set(page.jobs.map((job) => job.id))
        const oldest = page.jobs.at(-1)?.created ?? 0
        const older = page.more ? this.jobs.filter((job) => !fresh.has(job.id) && job.created <= oldest) : []
        if (!older.length) this.more = page.more
        this.jobs = [...page.jobs, ...older]
        this.#freshen()
        if (this.offline || !this.ready) {
          this.offline = false
          if (!this.ready) return void this.meet()
        }
      }
    } catch (error) {
      this.trouble(error)
    }
    const hurry = this.running.length > 0 && !this.offline
    this.#timer = window.setTimeout(() => this.refresh(), hurry ? SOON : LATER)
  }

  /** A draft of an earlier day holds addresses that are no longer good. */
  #freshen(): void {
    for (const piece of this.draft.pieces) {
      const film = this.jobs.find((job) => job.id === piece.media.job)?.films[piece.media.output ?? 0]
      if (film && !piece.url) [piece.url, piece.picture] = [film.url, film.thumbnail_url]
    }
  }

  async older(): Promise<void> {
    try {
      const page = await server.jobs({ after: this.jobs.at(-1)?.id })
      this.jobs = [...this.jobs, ...page.jobs]
      this.more = page.more
    } catch (error) {
      this.trouble(error)
    }
  }

  /** What went wrong, said once; a missing key and a silent server have places of their own. */
  trouble(error: unknown): void {
    if (error instanceof Refusal && error.status === 0) this.offline = true
    else if (error instanceof Refusal && error.status === 401) {
      this.needsKey = key() ? text.key.wrong : text.key.title
      this.ready = false
    } else this.say(error instanceof Error ? error.message : String(error), true)
  }

  say(words: string, bad = false): void {
    if (this.said.some((one) => one.words === words)) return
    const id = ++this.#count
    this.said.push({ id, words, bad })
    window.setTimeout(() => this.unsay(id), bad ? 12000 : 5000)
  }

  unsay(id: number): void {
    this.said = this.said.filter((one) => one.id !== id)
  }

  enter(secret: string): void {
    keep(secret.trim())
    void this.meet()
  }

  leave(): void {
    keep('')
    this.jobs = []
    this.account = null
    void this.meet()
  }

  /** Do something to jobs and look at what became of it. */
  async act(doing: Promise<unknown>): Promise<boolean> {
    try {
      await doing
      return true
    } catch (error) {
      this.trouble(error)
      return false
    } finally {
      void this.refresh()
    }
  }

  look(): void {
    const [, place = 'create', id = ''] = location.hash.match(/^#\/(\w+)(?:\/([\w-]+))?$/) ?? []
    if (place === 'film') this.film = id
    else {
      this.film = ''
      this.place = place in text.places ? place : 'create'
    }
  }

  take(draft: Draft): void {
    this.draft = draft
    location.hash = '#/create'
  }

  keepDraft(): void {
    const plain = $state.snapshot(this.draft)
    localStorage.setItem(DRAFT, JSON.stringify(plain))
  }

  /** A favourite stays for good; anything else goes after a while. */
  async star(job: Job): Promise<void> {
    await this.act(server.change(job.id, { kept: !job.kept }))
  }
}

export const studio = new Studio()
