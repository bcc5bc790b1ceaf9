import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig } from 'vite'

// The page is served from `/`, its parts from `/studio/`; the server asks for a folder without folders in it.
export default defineConfig({
  plugins: [svelte()],
  base: '/studio/',
  build: {
    outDir: process.env.STUDIO_OUT ?? '../src/cinecanvas/server/studio',
    emptyOutDir: true,
    assetsDir: '.',
    assetsInlineLimit: 0, // a data: URI would need a hole in the policy
    modulePreload: { polyfill: false },
  },
  server: { proxy: { '/api': 'http://127.0.0.1:8000', '/media': 'http://127.0.0.1:8000' } },
})
