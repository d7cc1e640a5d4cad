'use strict';
// Gathering form_ids, and uploading them: what goes when, and what is kept.

const {test} = require('node:test');
const assert = require('node:assert');
const {Phone, opened} = require('./phone');

const WEEK_MS = 7 * 24 * 3600 * 1000;

function give(pushCode, count, from = 0) {
  for (let n = from; n < from + count; n += 1) pushCode.collect(Phone.submit(`form${n}`));
}

test('a submit gives its form_id, in memory and in storage', () => {
  const {phone, pushCode} = opened();
  assert.strictEqual(pushCode.collect(Phone.submit('1a2b')), true);
  assert.deepStrictEqual(phone.waiting(), ['1a2b']);
});

for (const formId of [
  'the formId is a mock one',
  'requestFormId:fail timeout',
  'requestFormId:fail',
  'undefined',
  'null',
  '',
  ' ',
  'f\n',
  '表单',
  'f'.repeat(129),
  undefined,
  null,
  7,
  {},
  ['1a2b'],
]) {
  test(`${JSON.stringify(formId)?.slice(0, 40)} is no form_id`, () => {
    const {phone, pushCode} = opened();
    assert.strictEqual(pushCode.collect(Phone.submit(formId)), false);
    assert.deepStrictEqual(phone.waiting(), []);
  });
}

for (const event of [undefined, null, 0, 'x', {}, {detail: null}, {type: 'tap', detail: {x: 1}}]) {
  test(`what is no submit, such as ${JSON.stringify(event)}, gives nothing and throws nothing`, () => {
    assert.strictEqual(opened().pushCode.collect(event), false);
  });
}

test('the same submit twice is one form_id', () => {
  const {phone, pushCode} = opened();
  assert.strictEqual(pushCode.collect(Phone.submit('1a2b')), true);
  assert.strictEqual(pushCode.collect(Phone.submit('1a2b')), false);
  assert.deepStrictEqual(phone.waiting(), ['1a2b']);
});

test('nothing is sent for a tap alone: it goes with the next request, which goes first', () => {
  const {phone, pushCode, service} = opened();
  give(pushCode, 3);
  phone.settle();
  assert.strictEqual(phone.requests.length, 0);
  const answered = [];
  pushCode.request({url: 'https://shop.example.com/items', success: () => answered.push('items')});
  phone.settle();
  assert.deepStrictEqual(
    phone.requests.map((request) => new URL(request.url).pathname),
    ['/items', '/v1/apps/shop/login', '/v1/apps/shop/collect'],
  );
  assert.deepStrictEqual(answered, ['items']);
  assert.deepStrictEqual([...service.stored], ['form0', 'form1', 'form2']);
  assert.deepStrictEqual(phone.waiting(), []);
});

test('what wx.request returns, the page gets', () => {
  const {pushCode} = opened();
  assert.strictEqual(typeof pushCode.request({url: 'https://x.example.com/'}).abort, 'function');
});

test('it goes when the mini-program is hidden', () => {
  const {phone, pushCode, service} = opened();
  give(pushCode, 2);
  phone.hide();
  phone.settle();
  assert.deepStrictEqual([...service.stored], ['form0', 'form1']);
});

test("an old library without onAppHide: the App's own onHide does it", () => {
  const {phone, pushCode, service} = opened({missing: ['onAppHide']});
  give(pushCode, 2);
  pushCode.upload();
  phone.settle();
  assert.strictEqual(service.stored.size, 2);
});

test('ten are uploaded at once', () => {
  const {phone, pushCode, service} = opened();
  give(pushCode, 9);
  phone.settle();
  assert.strictEqual(service.stored.size, 0);
  give(pushCode, 1, 9);
  phone.settle();
  assert.strictEqual(service.stored.size, 10);
});

test('many go in batches of fifty, one after the other, the oldest first', () => {
  const {phone, pushCode} = opened();
  service_away(phone, pushCode, () => give(pushCode, 120));
  phone.settle();
  assert.deepStrictEqual(
    phone.uploads().map(([{formIds}]) => [formIds.length, formIds[0].formId]),
    [[50, 'form0'], [50, 'form50'], [20, 'form100']],
  );
  assert.deepStrictEqual(phone.waiting(), []);
});

/** Gather while nothing can be sent, and let it be sent then. */
function service_away(phone, pushCode, gather) {
  const {answer} = phone;
  phone.answer = () => 'fail';
  gather();
  phone.settle();
  phone.answer = answer;
  phone.clock += 3600 * 1000;
  phone.requests.length = 0;
  pushCode.upload();
}

test('two hundred wait at the most: the oldest give way', () => {
  const {phone, pushCode} = opened({answer: () => 'fail'});
  phone.answer = () => 'fail';
  give(pushCode, 230);
  phone.settle();
  const waiting = phone.waiting();
  assert.deepStrictEqual([waiting.length, waiting[0], waiting[199]], [200, 'form30', 'form229']);
});

test('each is good for seven days from its submit', () => {
  const {phone, pushCode} = opened();
  const given = phone.clock;
  give(pushCode, 1);
  phone.clock += 3600 * 1000;
  give(pushCode, 1, 1);
  pushCode.upload();
  phone.settle();
  assert.deepStrictEqual(phone.uploads(), [
    [{formIds: [
      {formId: 'form0', expire: given + WEEK_MS},
      {formId: 'form1', expire: given + 3600 * 1000 + WEEK_MS},
    ]}],
  ]);
});

test('what has expired on the phone is not sent', () => {
  const {phone, pushCode} = opened();
  give(pushCode, 2);
  phone.clock += WEEK_MS - 1000;
  give(pushCode, 1, 2);
  phone.clock += 2000;
  pushCode.upload();
  phone.settle();
  assert.deepStrictEqual(phone.uploads()[0][0].formIds.map(({formId}) => formId), ['form2']);
  assert.deepStrictEqual(phone.waiting(), []);
});

test('where all has expired nothing is sent', () => {
  const {phone, pushCode} = opened();
  give(pushCode, 2);
  phone.clock += WEEK_MS;
  pushCode.upload();
  phone.settle();
  assert.deepStrictEqual([phone.uploads(), phone.waiting()], [[], []]);
});

test('what is gathered during an upload is not lost with it', () => {
  const {phone, pushCode, service} = opened();
  give(pushCode, 2);
  pushCode.upload();
  phone.queue.shift()(); // login's code
  phone.queue.shift()(); // the ticket: the batch is on its way
  give(pushCode, 1, 2);
  assert.strictEqual(phone.uploads().length, 1);
  phone.settle();
  assert.strictEqual(service.stored.size, 3);
  assert.deepStrictEqual(phone.uploads().map((call) => call[0].formIds.length), [2, 1]);
});

test('one upload at a time, however often it is asked for', () => {
  const {phone, pushCode} = opened();
  give(pushCode, 2);
  for (let n = 0; n < 5; n += 1) pushCode.upload();
  phone.hide();
  phone.settle();
  assert.strictEqual(phone.uploads().length, 1);
});

test('with nothing in hand there is no request', () => {
  const {phone, pushCode} = opened();
  pushCode.upload();
  phone.hide();
  phone.settle();
  assert.strictEqual(phone.requests.length, 0);
});

test('the openid is never sent: the ticket says who it is', () => {
  const {phone, pushCode} = opened();
  give(pushCode, 1);
  pushCode.upload();
  phone.settle();
  assert.ok(!JSON.stringify(phone.requests).includes('openid'));
  assert.deepStrictEqual(phone.sent('/login').map((request) => JSON.parse(request.data)), [
    {code: 'code-1'},
  ]);
});

test('before start everything is gathered and nothing is sent', () => {
  const phone = new Phone();
  const pushCode = phone.boot();
  give(pushCode, 20);
  pushCode.upload();
  pushCode.prepare();
  phone.settle();
  assert.deepStrictEqual([phone.requests.length, phone.waiting().length], [0, 20]);
});

for (const [options, wrong] of [
  [undefined, 'url'],
  [{app: 'shop'}, 'url'],
  [{url: 'push.example.com', app: 'shop'}, 'url'],
  [{url: 'https://', app: 'shop'}, 'url'],
  [{url: 'https://push.example.com/?a=1', app: 'shop'}, 'url'],
  [{url: 'https://push.example.com'}, 'app'],
  [{url: 'https://push.example.com', app: '../shop'}, 'app'],
]) {
  test(`start(${JSON.stringify(options)}) says what is wrong`, () => {
    const pushCode = new Phone().boot();
    assert.throws(() => pushCode.start(options), (error) => error.message.includes(`${wrong} must`));
  });
}

test('a trailing slash and a path in the address do no harm', () => {
  const phone = new Phone();
  const pushCode = phone.boot();
  pushCode.start({url: 'https://example.com/push/', app: 'shop'});
  give(pushCode, 1);
  pushCode.upload();
  phone.settle();
  assert.strictEqual(phone.requests[0].url, 'https://example.com/push/v1/apps/shop/login');
});
