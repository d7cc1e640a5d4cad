'use strict';
// What goes wrong between a tap and the service, and what becomes of the form_id then.

const {test} = require('node:test');
const assert = require('node:assert');
const {Phone, Service, opened} = require('./phone');

const MINUTE_MS = 60 * 1000;
const DAY_MS = 24 * 3600 * 1000;

/** A phone with a ticket and one form_id in hand. */
function loggedIn(options) {
  const all = opened(options);
  all.pushCode.collect(Phone.submit('first'));
  all.pushCode.upload();
  all.phone.settle();
  assert.deepStrictEqual([...all.service.stored], ['first']);
  all.service.calls.length = 0;
  all.phone.requests.length = 0;
  all.pushCode.collect(Phone.submit('f1'));
  return all;
}

// what happens to one upload -> what is called, and whether the form_id still waits on the phone.
// `later`: after so long the next upload succeeds.
const STORED = {status: 200, data: {lines: 1, new: 1, known: 0, refused: {}, listed: []}};
const TABLE = [
  {name: 'all is well', trouble: [], calls: ['POST /collect'], kept: false},
  {name: 'offline', trouble: ['fail'], calls: ['POST /collect'], kept: true, later: MINUTE_MS},
  {
    name: 'the answer is lost on its way: the same is sent again, and counts once',
    trouble: [{stores: true, says: 'fail'}],
    calls: ['POST /collect'], kept: true, later: MINUTE_MS,
  },
  {
    name: '401: one login, and again',
    trouble: [{status: 401}],
    calls: ['POST /collect', 'POST /login', 'POST /collect'], kept: false,
  },
  {
    name: '401 for the new ticket too: no third try',
    trouble: [{status: 401}, null, {status: 401}],
    calls: ['POST /collect', 'POST /login', 'POST /collect'], kept: true, later: MINUTE_MS,
  },
  {
    name: '401 and the login fails',
    trouble: [{status: 401}, {status: 503}],
    calls: ['POST /collect', 'POST /login'], kept: true, later: MINUTE_MS,
  },
  {
    name: '429: not before the service said',
    trouble: [{status: 429, header: {'Retry-After': '90'}}],
    calls: ['POST /collect'], kept: true, soon: 89 * 1000, later: 91 * 1000,
  },
  {
    name: '503, its header in small letters',
    trouble: [{status: 503, header: {'retry-after': '90'}}],
    calls: ['POST /collect'], kept: true, soon: 89 * 1000, later: 91 * 1000,
  },
  {
    name: '503 that says a day: ten minutes are enough',
    trouble: [{status: 503, header: {'Retry-After': '86400'}}],
    calls: ['POST /collect'], kept: true, soon: 9 * MINUTE_MS, later: 10 * MINUTE_MS,
  },
  {name: '500', trouble: [{status: 500}], calls: ['POST /collect'], kept: true, later: MINUTE_MS},
  {
    name: '502 of a gateway, in HTML',
    trouble: [{status: 502, data: '<html>Bad Gateway</html>'}],
    calls: ['POST /collect'], kept: true, later: MINUTE_MS,
  },
  {
    name: '200 of something else in between',
    trouble: [{status: 200, data: '<html>Log in to this network</html>'}],
    calls: ['POST /collect'], kept: true, later: MINUTE_MS,
  },
  {
    name: '200 without a body',
    trouble: [{status: 200, data: ''}],
    calls: ['POST /collect'], kept: true, later: MINUTE_MS,
  },
  {
    name: '403 and 404, a wrong app: it is kept until that is mended',
    trouble: [{status: 404}],
    calls: ['POST /collect'], kept: true, later: MINUTE_MS,
  },
  {
    name: '422 once may be a mistake of the day',
    trouble: [{status: 422}],
    calls: ['POST /collect'], kept: true, later: MINUTE_MS,
  },
  {
    name: 'the upload is refused item by item: that is an answer',
    trouble: [{status: 200, data: {...STORED.data, new: 0, refused: {expired: 1}}}],
    calls: ['POST /collect'], kept: false,
  },
];

for (const {name, trouble, calls, kept, soon, later} of TABLE) {
  test(name, () => {
    const {phone, service, pushCode} = loggedIn();
    service.trouble = [...trouble];
    pushCode.upload();
    phone.settle();
    assert.deepStrictEqual(service.calls, calls);
    assert.deepStrictEqual(phone.waiting(), kept ? ['f1'] : []);
    if (!kept) return;
    pushCode.upload(); // at once: nothing is sent
    phone.clock += soon || 0;
    pushCode.upload();
    phone.settle();
    assert.deepStrictEqual(service.calls, calls);
    phone.clock += later - (soon || 0);
    pushCode.upload();
    phone.settle();
    assert.deepStrictEqual([...service.stored], ['first', 'f1']);
    assert.deepStrictEqual(phone.waiting(), []);
  });
}

test('the pauses grow and end at ten minutes', () => {
  const {phone, service, pushCode} = loggedIn();
  const tries = [];
  const began = phone.clock;
  for (let n = 0; n < 3600; n += 1) {
    service.trouble = ['fail'];
    pushCode.upload();
    phone.settle();
    if (service.calls.length > tries.length) tries.push(phone.clock - began);
    phone.clock += 1000;
  }
  const gaps = tries.slice(1).map((at, n) => at - tries[n]);
  assert.ok(gaps[0] <= 6000, `${gaps}`);
  assert.ok(gaps.every((gap) => gap <= 601 * 1000), `${gaps}`);
  assert.ok(gaps.at(-1) >= 250 * 1000, `${gaps}`);
  assert.ok(tries.length < 20, `${gaps}`);
});

test('what the service calls malformed three times does not bar the way for ever', () => {
  const {phone, service, pushCode} = loggedIn();
  for (let n = 0; n < 3; n += 1) {
    service.trouble = [{status: 422}];
    pushCode.upload();
    phone.settle();
    phone.clock += 10 * MINUTE_MS;
  }
  assert.deepStrictEqual(phone.waiting(), []);
  assert.match(phone.warnings.at(-1), /refused an upload 3 times \(422\)/);
  pushCode.collect(Phone.submit('f2'));
  pushCode.upload();
  phone.settle();
  assert.ok(service.stored.has('f2'));
});

test('killed during the upload: after the restart it is sent again, and counts once', () => {
  for (const stores of [true, false]) {
    const {phone, service, pushCode} = loggedIn();
    service.trouble = stores ? [{stores: true, says: 'hang'}] : ['hang'];
    pushCode.upload();
    phone.settle();
    const again = phone.boot(); // memory and callbacks are gone
    again.start({url: 'https://push.example.com', app: 'shop'});
    phone.settle();
    assert.deepStrictEqual([...service.stored], ['first', 'f1']);
    assert.deepStrictEqual(phone.waiting(), []);
  }
});

test('killed before anything was sent: it goes at the next start', () => {
  const {phone, service, pushCode} = opened();
  pushCode.collect(Phone.submit('f1'));
  phone.boot().start({url: 'https://push.example.com', app: 'shop'});
  phone.settle();
  assert.deepStrictEqual([...service.stored], ['f1']);
});

test('a restart uses the ticket that is still good', () => {
  const {phone, service} = loggedIn();
  phone.boot().start({url: 'https://push.example.com', app: 'shop'});
  phone.settle();
  assert.deepStrictEqual(service.calls, ['POST /collect']);
});

test('a ticket is of one app at one service', () => {
  const {phone, service} = loggedIn();
  phone.boot().start({url: 'https://push.example.com/new', app: 'shop'});
  phone.settle();
  assert.match(service.calls[0], /login$/);
});

test('the phone dropped the callback: a minute later the next one goes', () => {
  const {phone, service, pushCode} = loggedIn();
  service.trouble = ['hang'];
  pushCode.upload();
  phone.clock += MINUTE_MS - 1;
  pushCode.upload();
  phone.settle();
  assert.strictEqual(service.calls.length, 1);
  phone.clock += 1;
  pushCode.upload();
  phone.settle();
  assert.ok(service.stored.has('f1'));
});

test('a login whose callback was dropped holds nobody up for ever', () => {
  const {phone, service, pushCode} = opened();
  pushCode.collect(Phone.submit('f1'));
  phone.login = () => 'hang';
  pushCode.prepare();
  pushCode.upload();
  phone.settle();
  phone.login = () => 'code-2';
  phone.clock += MINUTE_MS;
  pushCode.upload();
  phone.settle();
  assert.ok(service.stored.has('f1'));
});

test('wx.login fails: the service is not asked, and the next time it works', () => {
  const {phone, service, pushCode} = opened();
  pushCode.collect(Phone.submit('f1'));
  phone.login = () => '';
  pushCode.upload();
  phone.settle();
  assert.deepStrictEqual(service.calls, []);
  phone.login = () => 'code-2';
  phone.clock += MINUTE_MS;
  pushCode.upload();
  phone.settle();
  assert.deepStrictEqual([...service.stored], ['f1']);
});

for (const said of [
  'fail',
  {status: 422},
  {status: 429, header: {'Retry-After': '30'}},
  {status: 503},
  {status: 200, data: {}},
  {status: 200, data: 'x'},
  {status: 200, data: {token: 'v1.1', expires_in_s: 'soon'}},
]) {
  test(`a login that ends in ${JSON.stringify(said)} keeps everything, and is not repeated at once`, () => {
    const {phone, service, pushCode} = opened();
    pushCode.collect(Phone.submit('f1'));
    service.trouble = [said];
    for (let n = 0; n < 5; n += 1) {
      pushCode.upload();
      pushCode.prepare();
      phone.settle();
    }
    assert.deepStrictEqual(service.calls, ['POST /login']);
    phone.clock += MINUTE_MS;
    pushCode.upload();
    phone.settle();
    assert.deepStrictEqual([...service.stored], ['f1']);
  });
}

test('the failed login of a renewal that says how long to wait is heeded', () => {
  const {phone, service, pushCode} = loggedIn();
  service.trouble = [{status: 401}, {status: 429, header: {'Retry-After': '300'}}];
  pushCode.upload();
  phone.settle();
  phone.clock += 299 * 1000;
  pushCode.upload();
  phone.settle();
  assert.strictEqual(service.calls.length, 2);
});

// -- two requests in flight, both answered 401 ----------------------------------------------------

/** A phone with a plan to fetch and a form_id to upload, whose ticket the service no longer takes. */
function outdated() {
  const all = loggedIn();
  all.service.tickets += 1;
  all.ask = () => {
    all.pushCode.upload();
    all.pushCode.prepare();
  };
  return all;
}

const BOTH = ['POST /collect', 'GET /permits/plan'];

function assertRenewedOnce({phone, service}) {
  assert.deepStrictEqual(service.calls.slice(0, 2), BOTH);
  assert.deepStrictEqual([...service.calls.slice(2)].sort(), ['POST /login', ...BOTH].sort());
  assert.deepStrictEqual([...service.stored], ['first', 'f1']);
  const own = phone.requests.filter((request) => !request.url.endsWith('/login'));
  const used = own.map((request) => request.header.Authorization).filter(Boolean);
  assert.deepStrictEqual(used, ['Bearer v1.1', 'Bearer v1.1', 'Bearer v1.3', 'Bearer v1.3']);
}

test('two 401s at once: one login, and each is repeated once', () => {
  const all = outdated();
  all.ask();
  all.phone.settle();
  assertRenewedOnce(all);
});

test('a login shows the ticket that the phone had before, and the first one none', () => {
  const {phone, pushCode} = opened();
  pushCode.collect(Phone.submit('first'));
  for (let n = 0; n < 2; n += 1) {
    pushCode.upload();
    phone.settle();
    pushCode.collect(Phone.submit(`f${n}`));
    phone.clock += 3 * 3600 * 1000; // it has expired
  }
  const shown = phone.sent('/login').map((request) => request.header.Authorization);
  assert.deepStrictEqual(shown, [undefined, 'Bearer v1.1']);
});

test('a 401 that comes when the login is over uses its ticket: no second login', () => {
  const all = outdated();
  all.ask();
  const [collected, planned] = all.phone.queue.splice(0); // both answers: 401
  collected();
  all.phone.settle(); // login and repeat
  assert.deepStrictEqual([...all.service.stored], ['first', 'f1']);
  planned();
  all.phone.settle();
  assertRenewedOnce(all);
});

test('a 401 that comes when the login is over does not cost the new ticket, at the tap either', () => {
  const {phone, service, pushCode} = outdated();
  pushCode.upload();
  pushCode.subscribe(undefined); // fetches the plan, and never logs in
  const [collected, planned] = phone.queue.splice(0);
  collected();
  phone.settle();
  planned();
  phone.settle();
  pushCode.collect(Phone.submit('f2'));
  pushCode.upload();
  phone.settle();
  assert.strictEqual(service.calls.filter((call) => call === 'POST /login').length, 1);
  assert.ok(service.stored.has('f2'));
});

test('two 401s and a login that fails: each is told, nothing is repeated', () => {
  const {phone, service, ask} = outdated();
  service.trouble = [null, null, {status: 503}];
  ask();
  phone.settle();
  assert.deepStrictEqual(service.calls, [...BOTH, 'POST /login']);
  assert.deepStrictEqual(phone.waiting(), ['f1']);
});

test('an expired ticket is renewed before it is used', () => {
  const {phone, service, pushCode} = loggedIn();
  phone.clock += 2 * 3600 * 1000;
  pushCode.upload();
  phone.settle();
  assert.deepStrictEqual(service.calls, ['POST /login', 'POST /collect']);
});

// -- storage --------------------------------------------------------------------------------------

test('the storage is full: memory serves, and nothing reaches the page', () => {
  const {phone, service, pushCode} = opened({full: true});
  for (let n = 0; n < 12; n += 1) pushCode.collect(Phone.submit(`f${n}`));
  phone.settle();
  assert.strictEqual(service.stored.size, 12);
});

test('the storage is full after an upload: what is sent again counts once', () => {
  const {phone, service, pushCode} = loggedIn();
  phone.full = true;
  pushCode.upload();
  phone.settle();
  phone.full = false;
  phone.boot().start({url: 'https://push.example.com', app: 'shop'});
  phone.settle();
  assert.deepStrictEqual([...service.stored], ['first', 'f1']);
  assert.deepStrictEqual(phone.waiting(), []);
});

for (const junk of [
  'no JSON',
  '[]',
  '7',
  '{"version":99,"codes":[{"formId":"x","at":1}]}',
  '{"version":1}',
  '{"version":1,"codes":{"length":9},"results":7,"ticket":7,"skewMs":"x"}',
  '{"version":1,"codes":[null,7,{"formId":7,"at":1},{"formId":"x"},{"formId":"the formId is a mock one","at":1}],"results":[{"at":1,"id":"i","subscriptions":null}]}',
  {already: 'an object'},
]) {
  test(`storage that holds ${JSON.stringify(junk).slice(0, 60)} is an empty list`, () => {
    const phone = new Phone();
    const service = new Service(phone);
    phone.storage.set('wxbroadcast:push-code', junk);
    const pushCode = phone.boot();
    pushCode.start({url: 'https://push.example.com', app: 'shop'});
    pushCode.collect(Phone.submit('f1'));
    pushCode.upload();
    phone.settle();
    assert.deepStrictEqual([...service.stored], ['f1']);
    assert.deepStrictEqual(phone.waiting(), []);
  });
}

test('a wx that throws reaches no page', () => {
  const phone = new Phone();
  phone.wx = () => {
    const wx = {};
    for (const name of ['getStorageSync', 'setStorageSync', 'login', 'request', 'onAppHide',
      'requestSubscribeMessage', 'getAppBaseInfo', 'getSystemInfoSync']) {
      wx[name] = () => {
        throw new Error(`${name}:fail`);
      };
    }
    delete wx.onAppHide;
    return wx;
  };
  const pushCode = phone.boot();
  pushCode.start({url: 'https://push.example.com', app: 'shop'});
  for (let n = 0; n < 12; n += 1) pushCode.collect(Phone.submit(`f${n}`));
  pushCode.prepare();
  pushCode.upload();
  const told = [];
  pushCode.subscribe(['T1'], (answer) => told.push(answer.errCode));
  assert.deepStrictEqual(told, [-1]);
});

// -- clocks ---------------------------------------------------------------------------------------

/** When each form_id ends, by the service's clock, as the phone said. */
function ends(phone) {
  const {formIds} = phone.uploads().at(-1)[0];
  return Object.fromEntries(formIds.map(({formId, expire}) => [formId, expire]));
}

for (const days of [-3650, -8, -1, 1, 8, 3650]) {
  test(`a phone whose clock is ${days} days off files the right expiry, and loses nothing`, () => {
    const {phone, service, pushCode} = opened();
    service.ahead = -days * DAY_MS;
    const given = phone.clock + service.ahead;
    pushCode.collect(Phone.submit('f1'));
    phone.clock += 3600 * 1000;
    pushCode.upload();
    phone.settle();
    pushCode.collect(Phone.submit('f2'));
    pushCode.upload();
    phone.settle();
    assert.ok(service.stored.has('f1') && service.stored.has('f2'));
    const expire = phone.uploads()[0][0].formIds[0].expire;
    assert.ok(Math.abs(expire - given - 7 * DAY_MS) <= 2000, String(expire - given - 7 * DAY_MS));
    const later = ends(phone).f2 - given - 3600 * 1000 - 7 * DAY_MS;
    assert.ok(Math.abs(later) <= 2000, String(later));
  });
}

test('a clock that is set while the mini-program runs costs neither the ticket nor the form_id', () => {
  for (const days of [-30, 30]) {
    const {phone, service, pushCode} = loggedIn(); // f1 was gathered by the right clock
    phone.clock += days * DAY_MS;
    service.ahead = -days * DAY_MS;
    pushCode.upload();
    phone.settle();
    assert.ok(service.stored.has('f1'), `${days} days`);
    assert.deepStrictEqual(service.calls, ['POST /login', 'POST /collect']);
  }
});

test('a clock that is set back during a pause does not make it longer', () => {
  const {phone, service, pushCode} = loggedIn();
  service.trouble = [{status: 503, header: {'Retry-After': '300'}}];
  pushCode.upload();
  phone.settle();
  phone.clock -= DAY_MS;
  service.ahead = DAY_MS;
  pushCode.upload();
  phone.settle();
  assert.ok(service.stored.has('f1'));
});

for (const date of ['', 'soon', 'Thu, 01 Jan 1970 00:00:00 GMT']) {
  test(`an answer dated ${JSON.stringify(date)} leaves the phone's own time`, () => {
    const {phone, service, pushCode} = opened();
    const serve = phone.answer;
    phone.answer = (request) => ({...serve(request), header: {Date: date}});
    const given = phone.clock;
    pushCode.collect(Phone.submit('f1'));
    pushCode.upload();
    phone.settle();
    assert.ok(service.stored.has('f1'));
    assert.strictEqual(ends(phone).f1, given + 7 * DAY_MS);
  });
}
