// A program of Luma's Node client: it creates, polls and downloads; then a second film begins with the first.
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { LumaAI } from 'lumaai';

const client = new LumaAI({ maxRetries: 0 });
const prompt = 'a red ball rolls to the right on grass';

async function done(generation) {
  while (generation.state !== 'completed') {
    assert.notEqual(generation.state, 'failed', generation.failure_reason);
    await new Promise((resolve) => setTimeout(resolve, 50));
    generation = await client.generations.get(generation.id);
  }
  return generation;
}

const asked = { model: 'ray-2', prompt, duration: '1s', resolution: '360p', aspect_ratio: '1:1' };
const first = await done(await client.generations.create(asked));
const response = await fetch(first.assets.video);
assert.equal(response.status, 200);
await writeFile('lumaai.mp4', Buffer.from(await response.arrayBuffer()));

const keyframes = { frame0: { type: 'image', url: first.assets.image } };
const second = await client.generations.create({ ...asked, keyframes });
assert.deepEqual(second.request.keyframes, keyframes);
const { generations } = await client.generations.list({ limit: 10 });
assert.deepEqual(generations.map((one) => one.id), [second.id, first.id]);
await client.generations.delete(second.id);
const missing = await client.generations.get(second.id).catch((error) => error);
assert.ok(missing instanceof LumaAI.NotFoundError);
