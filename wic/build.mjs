// Builds the page into dist, or with --tests the tests into node_modules/.tests.
import { build } from 'esbuild';
import { cp, mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(fileURLToPath(import.meta.url));
const dist = join(root, 'dist');

if (process.argv.includes('--tests')) await buildTests();
else await buildPage();

async function buildPage() {
  for (const name of await readdir(dist)) {
    if (name !== 'placeholder.html') await rm(join(dist, name), { recursive: true });
  }
  const { metafile } = await build({
    entryPoints: { wic: join(root, 'src/page/main.ts') },
    outdir: dist,
    bundle: true,
    minify: true,
    format: 'iife',
    target: 'es2022',
    legalComments: 'none', // they are in THIRD_PARTY_LICENSES.txt
    metafile: true,
    absWorkingDir: root,
    logLevel: 'warning',
  });
  await writeFile(join(dist, 'THIRD_PARTY_LICENSES.txt'), await licences(Object.keys(metafile.inputs)));
  // Last, since its presence is what says that the page is built.
  for (const name of ['icon.svg', 'style.css', 'index.html']) await cp(join(root, 'src', name), join(dist, name));
}

/** The licences of the npm packages that went into the bundle. */
async function licences(inputs) {
  const names = new Set();
  for (const input of inputs) {
    const name = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input)?.[1];
    if (name) names.add(name);
  }
  const parts = ['The page contains these packages, each under its own licence.\n'];
  for (const name of [...names].sort()) {
    const folder = join(root, 'node_modules', name);
    const { version, license } = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8'));
    const file = (await readdir(folder)).find((f) => /^licen[cs]e/i.test(f));
    if (!file) throw new Error(`package ${name} has no licence file: look at it before it ships`);
    parts.push(`${'='.repeat(72)}\n${name} ${version} (${license})\n\n${await readFile(join(folder, file), 'utf8')}`);
  }
  return parts.join('\n');
}

async function buildTests() {
  const out = join(root, 'node_modules/.tests');
  await rm(out, { recursive: true, force: true });
  await mkdir(out, { recursive: true });
  const tests = (await readdir(join(root, 'test'))).filter((f) => f.endsWith('.test.ts'));
  await build({
    entryPoints: tests.map((f) => join(root, 'test', f)),
    outdir: out,
    outExtension: { '.js': '.cjs' },
    bundle: true,
    platform: 'node',
    format: 'cjs', // as JsSIP is
    target: 'node20',
    sourcemap: 'inline',
    logLevel: 'warning',
  });
  // For cmd/epcscf's browser tests: SIP.js with our adapter.
  await build({
    entryPoints: [join(root, 'test/sipjs-page.ts')],
    outdir: out,
    bundle: true,
    format: 'iife',
    target: 'es2022',
    logLevel: 'warning',
  });
}
