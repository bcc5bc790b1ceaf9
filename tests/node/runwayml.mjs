// A program of Runway's Node client: it uploads a picture, creates, polls and downloads.
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import RunwayML, { toFile } from '@runwayml/sdk';

const client = new RunwayML({ maxRetries: 0 });
const promptText = 'a red ball rolls to the right on grass';
const dot = 'R0lGODlhAQABAIAAAP8AAP///ywAAAAAAQABAAACAkQBADs=';

async function done({ id }) {
  for (;;) {
    const task = await client.tasks.retrieve(id);
    assert.notEqual(task.status, 'FAILED', task.failure);
    if (task.status === 'SUCCEEDED') return task;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const asked = { model: 'gen4.5', promptText, ratio: '320:192', duration: 2 };
const task = await done(await client.textToVideo.create(asked));
const response = await fetch(task.output[0]);
assert.equal(response.status, 200);
await writeFile('runwayml.mp4', Buffer.from(await response.arrayBuffer()));

const picture = await toFile(Buffer.from(dot, 'base64'), 'dot.gif', { type: 'image/gif' });
const { uri } = await client.uploads.createEphemeral({ file: picture });
const promptImage = [{ uri, position: 'first' }];
const moving = await client.imageToVideo.create({ ...asked, model: 'gen4_turbo', promptImage });
await client.tasks.delete(moving.id);
const missing = await client.tasks.retrieve('00000000-0000-0000-0000-000000000000').catch((error) => error);
assert.ok(missing instanceof RunwayML.NotFoundError);
