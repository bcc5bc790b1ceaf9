/** Every English word of the page, in one place: a translation is another file like this one. */

const plural = (n: number, one: string, many = `${one}s`) => `${n} ${n === 1 ? one : many}`

export const text = {
  title: 'cinecanvas',
  places: { create: 'Create', gallery: 'Gallery', models: 'Models', account: 'Account' },
  skip: 'Skip to the page',
  offline: 'The server does not answer. Your draft is kept here; this page tries again by itself.',
  close: 'Close',
  dismiss: 'Dismiss',
  key: {
    title: 'This server asks for a key',
    help: 'An operator makes one with: cine keys make NAME. It is kept until this tab is closed, and sent to this server alone.',
    label: 'Key',
    enter: 'Enter',
    wrong: 'This key is not known here, or was revoked. Your draft is kept.',
    forget: 'Forget the key',
  },
  create: {
    heading: 'What should be seen?',
    prompt: 'Prompt',
    example: 'a red ball bounces on grass at sunset',
    ignored: 'Not known to this model',
    model: 'Model',
    length: 'Seconds',
    shape: 'Shape',
    quality: 'Quality',
    more: 'More',
    unset: 'by itself',
    make: 'Make it',
    making: 'Sending ...',
    keys: 'Ctrl+Enter',
    reset: 'New draft',
    plan: 'What it will be',
    facts: (w: number, h: number, s: number, fps: number, frames: number) =>
      frames <= 1 ? `${w} x ${h} px, one picture` : `${w} x ${h} px, ${s.toFixed(s < 10 ? 1 : 0)} s at ${fps} frames a second`,
    cost: (time: string, memory: string, credits: number) =>
      `about ${time}${memory ? `, ${memory} of memory` : ''}, ${plural(credits, 'credit')}`,
    count: (n: number) => plural(n, 'video'),
    later: 'Media at addresses are looked at when it is made.',
    cannot: 'This cannot be made',
    still: 'One picture',
  },
  strip: {
    heading: 'Timeline',
    help: 'What lies here is known; the rest is a hole that the model fills. Drop pictures and films, drag them, or move them by arrow keys.',
    empty: 'Nothing is known yet: all of it will be made from the words.',
    add: 'Add a picture or film',
    hole: (a: string, b: string) => `A hole from ${a} to ${b} seconds`,
    block: (name: string, a: string, b: string) => `${name}, from ${a} to ${b} seconds`,
    loop: 'Close the loop',
    words: 'Other words here',
    cue: (s: string) => `Words from ${s} s on`,
    start: 'Starts at (s)',
    from: 'From (s)',
    to: 'To (s)',
    keep: 'Kept',
    keepHelp: '1: exactly as it is; less: the model may change it.',
    end: 'At the very end',
    remove: 'Take it away',
    retake: 'Make a part of it anew',
    bringing: (name: string) => `Reading ${name} ...`,
  },
  frame: {
    heading: 'In the frame',
    place: 'Place', paint: 'Paint', all: 'Fill the frame', fit: 'Fit inside',
    help: 'Drag the picture, or a corner, to where it stands; what lies beside it is made anew.',
    paintHelp: 'Paint over what is to be made anew, in all frames.',
    brush: 'Brush', clear: 'Clear', invert: 'Invert', moment: 'Look at second', saving: 'Keeping the mask ...', kept: 'The mask is kept.',
    needsShape: 'Choose a shape above to reframe.',
    controls: 'Camera and motion strokes',
    noControls: 'No model served here follows strokes or camera paths; say it in words, such as "the camera pans right".',
  },
  queue: {
    heading: 'Now',
    empty: 'Nothing is being made.',
    states: { queued: 'Waiting', running: 'Being made', succeeded: 'Done', failed: 'Failed', cancelled: 'Cancelled' },
    paused: 'Paused',
    phase: { fetch: 'fetching media', load: 'loading the model', prepare: 'preparing', denoise: 'denoising', write: 'writing the file' } as Record<string, string>,
    step: (step: number, steps: number) => `step ${step} of ${steps}`,
    left: (time: string) => `${time} left`,
    cancel: 'Cancel',
    pause: 'Pause',
    resume: 'Go on',
    first: 'Make it next',
    watch: 'Watch what is there',
    preview: 'A glimpse of what it may become',
  },
  gallery: {
    heading: 'Everything you made',
    search: 'Search the prompts',
    state: 'State',
    any: 'any',
    favourites: 'Favourites',
    older: 'Older ones',
    none: 'Nothing here yet. What you make appears by itself.',
    noMatch: 'Nothing matches.',
    star: 'Favourite', starHelp: 'Favourites stay for good; other films go after some days.',
    compare: 'Compare',
    compareTwo: 'Compare side by side',
    choose: (n: number) => `${n} of 2 chosen`,
  },
  film: {
    play: 'Play', pause: 'Pause',
    extend: 'Extend', before: 'Extend to the left', loop: 'Close its loop', retake: 'Retake a part', inpaint: 'Paint a part anew', reframe: 'Reframe', remix: 'Remix', animate: 'Animate', again: 'Open as a draft', variations: 'Four variations', join: 'Join to the draft', use: 'Lay on the timeline',
    download: 'Download', forget: 'Forget it', forgetSure: 'Really forget it?',
    shown: (by: string) => `Shown as ${by} wrote it:`,
    seed: 'Seed', size: 'Size', made: 'Made', expires: 'Goes', took: 'Took', model: 'Model', digest: 'SHA-256',
    from: 'Made from', into: 'Became', notes: 'Notes',
    code: 'Do the same by program', copy: 'Copy', copied: 'Copied',
    missing: 'There is no such film, or it is not yours.',
  },
  models: {
    heading: 'Models served here',
    tasks: 'Does', licence: 'Licence', length: 'Up to', sizes: 'Sizes', sound: 'makes sound',
    more: 'Others are fetched on the server: cine models lists them, cine models pull NAME fetches one.',
  },
  account: {
    heading: 'Account', key: 'Key', scopes: 'May', credits: 'Credits left', unlimited: 'as many as there are', usage: 'What was used', day: 'Day', jobs: 'Jobs', film: 'Film', work: 'Work', spent: 'Credits', none: 'Nothing yet.',
  },
  keys: {
    heading: 'Keys', name: 'Whose', credits: 'Credits', endless: 'endless', make: 'Make a key', used: 'Last used', state: 'State',
    first: 'No key exists, so this machine lets its own user in. The first key needs the scope admin; from then on everybody needs one, this page too.',
    secret: 'This is told once:', revoke: 'Revoke', sure: 'Really revoke?', revoked: (at: string) => `revoked ${at}`,
  },
}

/** Seconds as people say them. */
export function duration(seconds: number): string {
  if (seconds < 10) return `${Math.max(0.1, seconds).toFixed(1)} s`
  if (seconds < 90) return `${Math.round(seconds)} s`
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`
  return `${(seconds / 3600).toFixed(1)} h`
}

export function bytes(n: number): string {
  if (n < 1e6) return `${Math.round(n / 1e3)} kB`
  return n < 1e9 ? `${(n / 1e6).toFixed(n < 1e7 ? 1 : 0)} MB` : `${(n / 1e9).toFixed(1)} GB`
}

export const when = (seconds: number) => new Date(seconds * 1000).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' })
export const at = (seconds: number) => String(Math.round(seconds * 100) / 100)
