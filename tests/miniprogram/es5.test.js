'use strict';
// The script is ES5: old phones run it as it stands.

const {test} = require('node:test');
const assert = require('node:assert');
const {execFileSync} = require('node:child_process');
const path = require('node:path');
const vm = require('node:vm');
const {ROOT, Phone} = require('./phone');

// node carries the acorn that it uses itself, so no package is needed
const PARSE = `
  const acorn = require('internal/deps/acorn/acorn/dist/acorn');
  const text = require('fs').readFileSync(process.argv[1], 'utf8');
  try { acorn.parse(text, {ecmaVersion: 5}); console.log('ES5'); }
  catch (error) { console.log(String(error)); }
`;

function parsed(file) {
  const args = ['--no-warnings', '--expose-internals', '-e', PARSE, file];
  return execFileSync(process.execPath, args, {encoding: 'utf8'}).trim();
}

for (const file of ['push-code.js', 'app.js', 'pages/check-in/check-in.js']) {
  test(`${file} parses as ES5`, () => {
    assert.strictEqual(parsed(path.join(ROOT, file)), 'ES5');
  });
}

test('the parser knows ES5 from what came later', () => {
  assert.match(parsed(__filename), /SyntaxError/);
});

test('the world that the other tests run it in has nothing that came later', () => {
  const phone = new Phone();
  phone.boot();
  const found = vm.runInContext(
    `[typeof Promise, typeof Map, typeof Object.assign, typeof [].includes, typeof ''.startsWith]`,
    phone.world,
  );
  assert.deepStrictEqual([...found], Array(5).fill('undefined'));
});

test('it gives exactly these words to a page', () => {
  const words = Object.keys(new Phone().boot());
  assert.deepStrictEqual(
    words.sort(),
    ['collect', 'optIn', 'optOut', 'page', 'prepare', 'request', 'start', 'subscribe', 'tap', 'upload'],
  );
});
