// A program of OpenAI's Node client: it creates, polls and downloads, with files and with objects as references.
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import OpenAI, { toFile } from 'openai';

const openai = new OpenAI({ maxRetries: 0 });
const prompt = 'a red ball rolls to the right on grass';
const small = { prompt, seconds: '1', size: '256x256' };
const pause = () => new Promise((resolve) => setTimeout(resolve, 50));

async function done(video) {
  while (video.status === 'queued' || video.status === 'in_progress') {
    await pause();
    video = await openai.videos.retrieve(video.id);
  }
  assert.equal(video.status, 'completed', video.error?.message);
  return video;
}

const first = await done(await openai.videos.create({ model: 'sora-2', ...small }));
assert.deepEqual([first.seconds, first.size, first.progress], ['1', '256x256', 100]);
const content = await openai.videos.downloadContent(first.id);
await writeFile('openai.mp4', Buffer.from(await content.arrayBuffer()));
const thumbnail = await openai.videos.downloadContent(first.id, { variant: 'thumbnail' });
const picture = Buffer.from(await thumbnail.arrayBuffer());

const file = await openai.files.create({ file: await toFile(picture, 'a.webp'), purpose: 'vision' });
const references = [
  await toFile(picture, 'a.webp', { type: 'image/webp' }),
  { file_id: file.id },
  { image_url: `data:image/webp;base64,${picture.toString('base64')}` },
];
for (const input_reference of references) {
  const made = await openai.videos.create({ ...small, input_reference });
  assert.equal(made.status, 'queued');
  await openai.videos.delete(made.id);
}

const film = await toFile(await readFile('openai.mp4'), 'film.mp4', { type: 'video/mp4' });
const others = [
  await openai.videos.remix(first.id, { prompt: 'a blue ball on snow' }),
  await openai.videos.edit({ prompt: 'a blue ball on snow', video: { id: first.id } }),
  await openai.videos.edit({ prompt: 'a blue ball on snow', video: film }),
  await openai.videos.extend({ prompt: 'the ball stops', seconds: '1', video: { id: first.id } }),
];
assert.deepEqual(others.map((video) => video.seconds), ['1', '1', '1', '2']);
assert.equal(others[0].remixed_from_video_id, first.id);
await done(others[0]);

const listed = [];
for await (const video of openai.videos.list({ limit: 2, order: 'asc' })) listed.push(video.id);
assert.deepEqual(listed, [first, ...others].map((video) => video.id));
for (const video of others) assert.ok((await openai.videos.delete(video.id)).deleted);

const character = await openai.videos.createCharacter({ name: 'Bob', video: film });
assert.equal((await openai.videos.getCharacter(character.id)).name, 'Bob');
const missing = await openai.videos.retrieve('video_none').catch((error) => error);
assert.ok(missing instanceof OpenAI.NotFoundError && missing.code === 'not_found');
const refused = await openai.videos.create({ prompt, sekonds: '4' }).catch((error) => error);
assert.ok(refused instanceof OpenAI.BadRequestError && refused.param === 'sekonds');
