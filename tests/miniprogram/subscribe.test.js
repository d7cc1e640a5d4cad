'use strict';
// Asking for subscriptions: which, how many at once, and what becomes of the answers.

const {test} = require('node:test');
const assert = require('node:assert');
const {Phone, opened} = require('./phone');

const T = Array.from({length: 8}, (_, n) => `T${n + 1}`);

/** Ask, and let everything happen; returns what the page was told. */
function ask(all, ids) {
  const told = [];
  all.pushCode.subscribe(ids, (answer) => told.push(answer));
  all.phone.settle();
  assert.strictEqual(told.length, 1, 'done is called once');
  return JSON.parse(JSON.stringify(told[0]));
}

/** A phone that has fetched its plan: what the user lacks, and what is better not asked for. */
function planned(lacking, options = {}) {
  const {skip = [], ...phone} = options;
  const all = opened(phone);
  all.service.templates = lacking;
  all.service.skip = skip;
  all.pushCode.prepare();
  all.phone.settle();
  return all;
}

for (const [library, most] of [
  ['1.9.0', 0],
  ['2.4.3', 0],
  ['2.4.4', 1],
  ['2.8.2', 1],
  ['2.8.3', 1],
  ['2.8.4', 3],
  ['2.32.0', 3],
  ['2.10.0', 3],
  ['3.4.0', 3],
  ['3.4.1', 3],
  ['3.10.2', 3],
  ['10.0.0', 3],
  ['', 3],
  ['dev', 3],
]) {
  test(`library ${JSON.stringify(library)} is asked for ${most} at once`, () => {
    const all = opened({library});
    const answer = ask(all, T);
    assert.deepStrictEqual(answer.asked, T.slice(0, most));
    assert.deepStrictEqual(all.phone.popups, most ? [T.slice(0, most)] : []);
    assert.strictEqual(answer.errCode, most ? 0 : -1);
  });
}

test('a library without getAppBaseInfo says its version the old way', () => {
  const all = opened({library: '2.8.4', missing: ['getAppBaseInfo']});
  assert.strictEqual(ask(all, T).asked.length, 3);
});

test('a WeChat without subscriptions says so', () => {
  const answer = ask(opened({missing: ['requestSubscribeMessage']}), T);
  assert.deepStrictEqual([answer.asked, answer.errCode], [[], -1]);
});

test('the page’s ids are asked for: what the user lacks first, most missing first', () => {
  const all = planned(['T9', 'T4', 'T2']);
  assert.deepStrictEqual(ask(all, ['T1', 'T2', 'T3', 'T4']).asked, ['T4', 'T2', 'T1']);
});

test('a plan that knows nothing yet, of a deployment without a broadcast, asks for all', () => {
  assert.deepStrictEqual(ask(planned([]), T).asked, ['T1', 'T2', 'T3']);
});

test('what the plan leaves out is not asked for', () => {
  const all = planned(['T2'], {skip: ['T1', 'T3']});
  assert.deepStrictEqual(ask(all, ['T1', 'T2', 'T3', 'T4']).asked, ['T2', 'T4']);
});

test('who has enough of all is not asked, and the page is told why', () => {
  const all = planned([], {skip: T});
  const errMsg = 'the plan: this user has enough';
  assert.deepStrictEqual(ask(all, T), {asked: [], results: {}, errCode: 0, errMsg});
  assert.deepStrictEqual(all.phone.popups, []);
});

test('a plan of an older service, which leaves out nothing, asks for all', () => {
  const all = planned(['T2'], {skip: undefined});
  assert.deepStrictEqual(ask(all, ['T1', 'T2']).asked, ['T2', 'T1']);
});

test('without ids the plan alone decides', () => {
  const all = planned(['T4', 'T2'], {library: '2.8.0'});
  assert.deepStrictEqual(ask(all, undefined).asked, ['T4']);
});

test('without ids and without a plan nobody is asked', () => {
  const all = opened();
  assert.deepStrictEqual(ask(all, undefined).asked, []);
});

test('an empty list, or a list of nothing, asks for nothing', () => {
  for (const ids of [[], [''], [null, 7], {}, 7]) {
    assert.deepStrictEqual(ask(planned(['T1']), ids).asked, []);
  }
});

test('the plan is fetched before the tap, so that the popup comes without a request', () => {
  const all = planned(['T1']);
  const before = all.phone.requests.length;
  all.pushCode.subscribe(['T1']);
  assert.deepStrictEqual(all.phone.popups, [['T1']]);
  assert.strictEqual(all.phone.requests.length, before);
});

for (const [name, make] of [
  ['no plan was ever fetched', () => opened()],
  ['the service is away', () => opened({answer: () => 'fail'})],
  ['nobody said where the service is', () => {
    const phone = new Phone();
    return {phone, pushCode: phone.boot()};
  }],
  ['the plan is old', () => {
    const all = planned([], {skip: T});
    all.phone.clock += 6 * 60 * 1000;
    return all;
  }],
  ['the service was found failing', () => {
    const all = opened();
    all.service.trouble = [{status: 500}];
    all.pushCode.prepare();
    all.phone.settle();
    return all;
  }],
  ['the plan is on its way', () => {
    const all = opened();
    all.pushCode.prepare();
    return all;
  }],
]) {
  test(`the popup comes within the tap although ${name}`, () => {
    const all = make();
    const before = all.phone.requests.length;
    all.pushCode.subscribe(['T1', 'T2']);
    assert.deepStrictEqual(all.phone.popups, [['T1', 'T2']]);
    assert.strictEqual(all.phone.requests.length, before);
  });
}

test('without ids and without a plan in hand it is fetched at the tap, with two seconds', () => {
  const all = planned(['T2']);
  all.phone.clock += 6 * 60 * 1000; // the plan is old
  assert.deepStrictEqual(ask(all, undefined).asked, ['T2']);
  const [, again] = all.phone.sent('/permits/plan?most=5');
  assert.strictEqual(again.timeout, 2000);
});

test('a tap never waits for a login, which would cost the right to ask', () => {
  const all = opened();
  assert.deepStrictEqual(ask(all, ['T1']).asked, ['T1']);
  const first = all.service.calls.indexOf('POST /login');
  assert.ok(first >= 0, 'the answer was uploaded, with a login');
  assert.ok(!all.service.calls.slice(0, first).includes('GET /permits/plan'));
});

for (const trouble of ['fail', {status: 401}, {status: 429}, {status: 500}, {status: 200, data: 7}]) {
  test(`a plan that ends in ${JSON.stringify(trouble)} does not keep the popup away`, () => {
    const all = planned(['T2']);
    all.phone.clock += 6 * 60 * 1000;
    all.service.trouble = [trouble, {status: 503}];
    all.pushCode.prepare();
    all.phone.settle();
    assert.deepStrictEqual(ask(all, ['T1', 'T2']).asked, ['T1', 'T2']);
  });
}

test('prepare asks once in five minutes, and not while a request for it is under way', () => {
  const all = opened();
  all.pushCode.prepare();
  all.pushCode.prepare();
  all.phone.settle();
  all.pushCode.prepare();
  all.phone.settle();
  assert.deepStrictEqual(all.service.calls, ['POST /login', 'GET /permits/plan']);
});

test('what the user chose is filed at once, with an id and the time', () => {
  const all = planned(['T1', 'T2', 'T3']);
  all.phone.popup = () => ({T1: 'accept', T2: 'reject', T3: 'acceptWithAudio', other: 'accept'});
  const answer = ask(all, T);
  assert.deepStrictEqual(answer.results, {T1: 'accept', T2: 'reject', T3: 'acceptWithAudio'});
  const [[upload]] = all.phone.uploads();
  assert.deepStrictEqual(upload.subscriptions, answer.results);
  assert.match(upload.id, /^[a-z0-9-]{10,64}$/);
  assert.strictEqual(upload.at, all.phone.clock);
});

test('an answer that could not be filed keeps its id, also through a restart', () => {
  const all = planned(['T1']);
  all.service.trouble = [{stores: true, says: 'fail'}];
  ask(all, ['T1']);
  const again = all.phone.boot();
  again.start({url: 'https://push.example.com', app: 'shop'});
  all.phone.settle();
  const ids = all.phone.uploads().map(([upload]) => upload.id);
  assert.strictEqual(ids.length, 2);
  assert.strictEqual(ids[0], ids[1]);
  assert.strictEqual(all.service.stored.size, 1);
  assert.deepStrictEqual(all.phone.kept().results, []);
});

test('each answer has an id of its own', () => {
  const all = planned(['T1']);
  for (let n = 0; n < 20; n += 1) ask(all, ['T1']);
  const ids = all.phone.uploads().flat().map((upload) => upload.id);
  assert.strictEqual(new Set(ids).size, 20);
});

test('fifty answers wait at the most, and go ten at a time', () => {
  const all = opened();
  const {answer} = all.phone;
  all.phone.answer = () => 'fail';
  for (let n = 0; n < 60; n += 1) ask(all, ['T1']);
  assert.strictEqual(all.phone.kept().results.length, 50);
  all.phone.answer = answer;
  all.phone.clock += 3600 * 1000;
  all.phone.requests.length = 0;
  all.pushCode.collect(Phone.submit('f1'));
  all.pushCode.upload();
  all.phone.settle();
  assert.deepStrictEqual(all.phone.uploads().map((call) => call.length), [11, 10, 10, 10, 10]);
  assert.strictEqual(all.service.stored.size, 51);
});

test('after an answer that is stored the plan is asked for anew', () => {
  const all = planned(['T1']);
  all.service.calls.length = 0;
  all.service.templates = [];
  all.service.skip = ['T1'];
  ask(all, ['T1']);
  assert.deepStrictEqual(all.service.calls, ['POST /collect', 'GET /permits/plan']);
  assert.deepStrictEqual(ask(all, ['T1']).asked, []);
});

test('a phone that takes one is asked for one', () => {
  const all = opened({library: '2.8.4'});
  all.phone.popup = (ids) => (ids.length > 1 ? {errCode: 20003, errMsg: 'x'} : {T1: 'accept'});
  assert.deepStrictEqual(ask(all, T).results, {T1: 'accept'});
  ask(all, T);
  all.pushCode = all.phone.boot();
  ask(all, T);
  assert.deepStrictEqual(all.phone.popups.map((ids) => ids.length), [3, 1, 1, 1]);
});

for (const errCode of [10001, 10002, 10005, 20001, 20002, 20004, 20005]) {
  test(`errCode ${errCode} is told, and nothing is filed`, () => {
    const all = opened();
    all.phone.popup = () => ({errCode, errMsg: 'requestSubscribeMessage:fail x'});
    const answer = ask(all, ['T1']);
    assert.deepStrictEqual([answer.errCode, answer.results], [errCode, {}]);
    assert.deepStrictEqual(all.phone.uploads(), []);
  });
}

test('a second tap while the popup is open opens no second one', () => {
  const all = opened();
  all.phone.popup = () => 'hang';
  all.pushCode.subscribe(['T1']);
  assert.deepStrictEqual([ask(all, ['T1']).errCode, all.phone.popups.length], [-1, 1]);
});

test('done may be left out', () => {
  const all = opened();
  all.pushCode.subscribe(['T1']);
  all.phone.settle();
  assert.strictEqual(all.service.stored.size, 1);
});

test('one id may come as it is', () => {
  assert.deepStrictEqual(ask(opened(), 'T1').asked, ['T1']);
});
