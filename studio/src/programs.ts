/** An order as programs that send it: plain HTTP, Python, and where it says as much, OpenAI's SDK. */

import type { Order } from './api'

export function programs(order: Order): Record<string, string> {
  const base = `${location.origin}/api/v1`
  const body = JSON.stringify(order, null, 2)
  const found: Record<string, string> = {
    Python: `import time

import httpx

order = ${pythonic(order)}
with httpx.Client(base_url="${base}", headers={"authorization": "Bearer KEY"}) as api:
    job = api.post("/jobs", json=order).raise_for_status().json()
    while job["state"] in ("queued", "running"):
        time.sleep(1)
        job = api.get(f"/jobs/{job['id']}").raise_for_status().json()
    for film in job["films"]:
        print(film["url"])
`,
    curl: `curl ${base}/jobs \\
  -H 'authorization: Bearer KEY' -H 'content-type: application/json' \\
  -d '${body.replaceAll("'", "'\\''")}'
`,
  }
  if (order.task === 'text_to_video' && !order.cues) {
    const ours = Object.fromEntries(
      Object.entries({ seed: order.seed, quality: order.quality, fps: order.fps, negative_prompt: order.negative }).filter(([, value]) => value != null && value !== ''),
    )
    found['OpenAI SDK'] = `from openai import OpenAI

client = OpenAI(base_url="${location.origin}/v1", api_key="KEY")
video = client.videos.create_and_poll(
    model=${JSON.stringify(order.model ?? 'sora-2')},
    prompt=${JSON.stringify(order.prompt)},
    seconds=${JSON.stringify(String(order.seconds ?? 4))},
    extra_body=${pythonic(ours)},
)
client.videos.download_content(video.id).write_to_file("film.mp4")
`
  }
  return found
}

/** JSON as Python writes it. */
function pythonic(value: unknown, indent = ''): string {
  if (value === null) return 'None'
  if (typeof value === 'boolean') return value ? 'True' : 'False'
  if (Array.isArray(value)) return `[${value.map((one) => pythonic(one, indent)).join(', ')}]`
  if (typeof value === 'object') {
    const within = `${indent}    `
    const rows = Object.entries(value as object).map(([name, one]) => `${within}${JSON.stringify(name)}: ${pythonic(one, within)},`)
    return rows.length ? `{\n${rows.join('\n')}\n${indent}}` : '{}'
  }
  return JSON.stringify(value)
}
