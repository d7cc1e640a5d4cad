'use strict';
// Opting out: the last wish reaches the service, whatever happens to the phone meanwhile.

const {test} = require('node:test');
const assert = require('node:assert');
const {Phone, Service, opened} = require('./phone');

/** Wish, and let everything happen; returns what the page was told. */
function wish(all, verb) {
  const told = [];
  all.pushCode[verb]((answer) => told.push(answer));
  all.phone.settle();
  assert.strictEqual(told.length, 1, 'done is called once');
  return JSON.parse(JSON.stringify(told[0]));
}

const told = (all) => all.service.calls.filter((call) => call.endsWith('/opt-in'));

test('a user who opts out, and in again, is believed', () => {
  const all = opened();
  assert.deepStrictEqual(wish(all, 'optOut'), {out: true, stored: true});
  assert.strictEqual(all.service.out, true);
  assert.deepStrictEqual(wish(all, 'optIn'), {out: false, stored: true});
  assert.strictEqual(all.service.out, false);
  assert.deepStrictEqual(told(all), ['DELETE /opt-in', 'PUT /opt-in']);
  assert.strictEqual(all.phone.kept().wish, null);
});

test('the last of many taps counts, and each is answered', () => {
  const all = opened();
  const answers = [];
  for (const verb of ['optOut', 'optIn', 'optOut']) all.pushCode[verb]((one) => answers.push(one));
  all.phone.settle();
  assert.strictEqual(all.service.out, true);
  assert.deepStrictEqual(answers.map((one) => [one.out, one.stored]), Array(3).fill([true, true]));
});

for (const trouble of ['fail', {status: 503}, {status: 200, data: '<html>'}, {status: 429}]) {
  test(`a wish outlives ${JSON.stringify(trouble)} and a kill, and is told at the next start`, () => {
    const all = opened();
    all.pushCode.prepare(); // a ticket
    all.phone.settle();
    all.service.trouble = [trouble];
    assert.deepStrictEqual(wish(all, 'optOut'), {out: true, stored: false});
    const again = all.phone.boot();
    again.start({url: 'https://push.example.com', app: 'shop'});
    all.phone.settle();
    assert.strictEqual(all.service.out, true);
    assert.strictEqual(all.phone.kept().wish, null);
  });
}

test('while the service is away, it is told later, by the next upload', () => {
  const all = opened();
  all.service.trouble = ['fail'];
  assert.deepStrictEqual(wish(all, 'optOut'), {out: true, stored: false});
  assert.deepStrictEqual(wish(all, 'optOut'), {out: true, stored: false}); // no storm of calls
  assert.strictEqual(told(all).length, 0);
  all.phone.clock += 10 * 60_000;
  all.pushCode.upload();
  all.phone.settle();
  assert.strictEqual(all.service.out, true);
});

test('an older service without this door hinders no upload, and is asked once a start', () => {
  const all = opened();
  all.pushCode.prepare();
  all.phone.settle();
  all.service.trouble = [{status: 404}];
  assert.deepStrictEqual(wish(all, 'optOut'), {out: true, stored: false});
  all.pushCode.collect(Phone.submit('formid1'));
  all.pushCode.upload();
  all.pushCode.upload();
  all.phone.settle();
  assert.ok(all.service.stored.has('formid1'));
  assert.strictEqual(told(all).length, 1);
});

test('before start it is kept, and told then', () => {
  const phone = new Phone();
  const service = new Service(phone);
  const pushCode = phone.boot();
  const answers = [];
  pushCode.optOut((one) => answers.push(one));
  assert.deepStrictEqual(answers.map((one) => one.stored), [false]);
  pushCode.start({url: 'https://push.example.com', app: 'shop'});
  phone.settle();
  assert.strictEqual(service.out, true);
});

test('a corrupt wish is none', () => {
  const all = opened();
  all.phone.storage.set('wxbroadcast:push-code', JSON.stringify({version: 1, wish: {out: 'x'}}));
  all.phone.boot().start({url: 'https://push.example.com', app: 'shop'});
  all.phone.settle();
  assert.strictEqual(told(all).length, 0);
});
