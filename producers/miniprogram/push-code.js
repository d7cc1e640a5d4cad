/**
 * push-code: gathers on the phone what allows one message each, and files it for this user.
 *
 * Drop this file into a mini-program (`wxbroadcast miniprogram DIR --script` puts it there); it needs
 * nothing else and is plain ES5.
 *
 *   var pushCode = require('./push-code.js');
 *   App({onLaunch: function () { pushCode.start({url: 'https://push.example.com', app: 'shop'}); }});
 *   Page(pushCode.page({openItem: function (e) { ... e.currentTarget.dataset.id ... }}));
 *   <form report-submit bindsubmit="openItem" data-id="7"><button form-type="submit">...</button></form>
 *
 * What it keeps on the phone, under one storage key: form_ids and subscription results that wait to
 * be uploaded, whether the user wants messages, while the service was not told, a ticket of the service, how far the phone's clock is off. The ticket is good for two
 * hours, and for filing this user's own permits only.
 *
 * What it guarantees: nothing leaves the list before the service has answered that it is stored; a
 * phone that is killed in between sends the same again, which the service counts once. It never
 * throws into the page, keeps no timer, and holds a bounded list: the oldest give way.
 *
 * What it does not: say who the user is. The service learns that from WeChat by the login code.
 */
'use strict';

var STORAGE_KEY = 'wxbroadcast:push-code';
var VERSION = 1;

// A form_id is good for 7 days from the submit (WeChat docs 2018, template messages).
var WEEK_MS = 7 * 24 * 3600 * 1000;

var MOST_CODES = 200; // form_ids that wait; a busy user gives a few dozen between two uploads
var MOST_RESULTS = 50; // subscription results that wait
var BATCH_CODES = 50; // per upload: with the results about 10 KB of the 64 KB that are taken
var BATCH_RESULTS = 10; // the service takes 20 uploads in one call
var PROMPT = 10; // so many are uploaded at once, without waiting for a request of the page

var MOST_PLANNED = 5; // templates of one plan
var PLAN_PATH = '/permits/plan?most=' + MOST_PLANNED;

var TIMEOUT_MS = 10000; // WeChat's own is 60 s, and the background cuts a request after 5 s
var TAP_TIMEOUT_MS = 2000; // the user has tapped and waits for the popup
var TURN_MS = 60000; // what has not ended by then never will: WeChat dropped the callback
var PLAN_MS = 300000; // a plan is used for so long
var PAUSE_MS = 5000; // after a first failure; doubled by each further one
var LONGEST_PAUSE_MS = 600000;
var REFUSALS = 3; // so often is the same upload offered to a service that calls it malformed

var config = null;
var hidesSeen = false;
var codes = null; // [{formId, at, sure}], oldest first; null: the storage was not read yet
var results = []; // [{id, at, sure, subscriptions}], oldest first
var wish = null; // {id, out}: whether the user wants no messages, until the service has it
var wishers = []; // who asked, and waits for that
var wishIsRefused = false; // in this run; a service without this door says so but once
var ticket = null; // {token, until, life, of}: phone's epoch ms, ms, whose
var skewMs = 0; // the service's clock minus the phone's
var mostTemplates = 0; // what this phone was found to take; 0: as its library says
var plan = null; // {ids, skip, at}
var turns = {}; // what is under way -> since when
var waiters = []; // who waits for the login under way; two at the most
var failures = 0;
var refusals = 0;
var heldFrom = 0;
var heldUntil = 0;

// -- gathering ------------------------------------------------------------------------------------

/**
 * Gather the form_id of a submit.
 *
 * @param {Object} event of any bindsubmit of a form with report-submit.
 * @returns {boolean} whether it held a form_id that is new.
 */
function collect(event) {
  var formId = event && event.detail && event.detail.formId;
  if (!isFormId(formId)) return false;
  load();
  for (var i = 0; i < codes.length; i += 1) if (codes[i].formId === formId) return false;
  codes.push({formId: formId, at: nowMs(), sure: false});
  if (codes.length > MOST_CODES) codes.shift();
  save();
  if (codes.length >= PROMPT) upload();
  return true;
}

/** The devtools answer 'the formId is a mock one', a failed check 'requestFormId:fail ...'. */
function isFormId(formId) {
  return (
    typeof formId === 'string' &&
    /^[\x21-\x7e]{1,128}$/.test(formId) && // visible ASCII: the mock one has blanks
    !/^(requestFormId:fail|undefined$|null$)/.test(formId)
  );
}

/**
 * Make a click handler serve as a bindsubmit: the form_id is gathered, then the handler runs.
 *
 * What the handler finds in currentTarget.dataset is the form's and, before it, the button's.
 * Whatever is no submit passes untouched, so the same handler may still stand in a bindtap.
 *
 * @param {Function} handler
 * @returns {Function} takes and returns what the handler does, with the same `this`.
 */
function tap(handler) {
  return function () {
    var args = Array.prototype.slice.call(arguments);
    if (isSubmit(args[0])) {
      collect(args[0]);
      args[0] = asTap(args[0]);
    }
    return handler.apply(this, args);
  };
}

/**
 * Do so for each function of a page, or of a component's methods; all else stays as it is.
 *
 * @param {Object} spec what Page() takes.
 * @returns {Object} the same object.
 */
function page(spec) {
  for (var name in spec) {
    if (has(spec, name) && typeof spec[name] === 'function') spec[name] = tap(spec[name]);
  }
  return spec;
}

function isSubmit(event) {
  return Boolean(event && event.type === 'submit' && event.detail && has(event.detail, 'formId'));
}

/** Return the event of a form as if its button had been tapped (detail.target is the button). */
function asTap(event) {
  var button = event.detail.target || {};
  var like = copy(event);
  like.currentTarget = copy(event.currentTarget);
  like.currentTarget.dataset = copy((event.currentTarget || {}).dataset, button.dataset);
  like.target = copy(event.target, button);
  like.target.dataset = copy((event.target || {}).dataset, button.dataset);
  return like;
}

// -- subscribing ----------------------------------------------------------------------------------

/**
 * Ask the user for subscriptions, and file the answers.
 *
 * To be called from a tap, for WeChat shows the popup only then; it is asked for before this
 * returns. A plan that is in hand, by `prepare`, says in which order, and which to leave out: those
 * that this user has enough of, or withdrew within a day. Without one all are asked for: neither a
 * plan that knows nothing yet nor a service that is away keeps the popup from the user.
 *
 * @param {string[]} [templateIds] what is asked for, the first ones of them; left out: whatever the
 *     plan wants, which is fetched now if it has to be (a request keeps the tap's right: WeChat
 *     docs, Tap events).
 * @param {Function} [done] called once with {asked, results, errCode, errMsg}: ids, id -> accept,
 *     reject, ban or filter, and WeChat's words. Nothing asked and errCode 0: the plan left out all.
 */
function subscribe(templateIds, done) {
  var ids = unique(templateIds);
  var anyOf = templateIds === undefined || templateIds === null;
  var tell = once(done);
  load();
  var most = templatesAtOnce();
  if (!most) return tell(asked([], -1, 'requestSubscribeMessage: this WeChat is too old'));
  if (!begin('ask')) return tell(asked([], -1, 'requestSubscribeMessage: the last call goes on'));
  function show(known) {
    var chosen = choose(anyOf ? null : ids, known, most);
    function finish(answer) {
      end('ask');
      tell(answer);
    }
    if (chosen.length) ask(chosen, finish);
    else finish(asked([], 0, known && ids.length ? 'the plan: this user has enough' : ''));
  }
  if (anyOf) planNow(show);
  else show(freshPlan());
}

/** Return the ids to ask for: those of the plan first, in its order, then the page's others. */
function choose(ids, known, most) {
  var chosen = [];
  var order = known ? known.ids : [];
  var skip = known ? known.skip : [];
  if (ids) order = unique(order.concat(ids));
  for (var i = 0; i < order.length && chosen.length < most; i += 1) {
    var wanted = !ids || ids.indexOf(order[i]) >= 0;
    if (wanted && skip.indexOf(order[i]) < 0) chosen.push(order[i]);
  }
  return chosen;
}

function ask(ids, done) {
  var answer = once(done);
  attempt(
    function () {
      wx.requestSubscribeMessage({
        tmplIds: ids,
        success: function (res) {
          var found = asked(ids, 0, res.errMsg);
          for (var i = 0; i < ids.length; i += 1) {
            if (typeof res[ids[i]] === 'string') found.results[ids[i]] = res[ids[i]];
          }
          keepResults(found.results);
          answer(found);
        },
        fail: function (error) {
          if (error && error.errCode === 20003 && ids.length > 1) {
            mostTemplates = 1; // 'Templates count out of max bounds'
            save();
            ask(ids.slice(0, 1), answer);
          } else {
            answer(asked(ids, (error && error.errCode) || -1, error && error.errMsg));
          }
        }
      });
    },
    function () {
      answer(asked(ids, -1, 'requestSubscribeMessage: failed'));
    }
  );
}

function keepResults(subscriptions) {
  var any = false;
  for (var id in subscriptions) if (has(subscriptions, id)) any = true;
  if (!any) return;
  // the id makes it count once, however often it is sent
  results.push({id: newId(), at: nowMs(), sure: false, subscriptions: subscriptions});
  if (results.length > MOST_RESULTS) results.shift();
  plan = null; // the user has more now
  save();
  upload();
}

function asked(ids, errCode, errMsg) {
  return {asked: ids, results: {}, errCode: errCode, errMsg: errMsg || ''};
}

/**
 * Return how many templates one popup takes.
 *
 * None below library 2.4.4, one up to 2.8.3, then three (WeChat docs, wx.requestSubscribeMessage).
 * The newest page says five, and not since which library: three is taken everywhere. A phone that
 * says 20003 all the same is believed.
 */
function templatesAtOnce() {
  var version = '';
  if (typeof wx.requestSubscribeMessage !== 'function') return 0;
  attempt(function () {
    var info = wx.getAppBaseInfo ? wx.getAppBaseInfo() : wx.getSystemInfoSync();
    version = String(info.SDKVersion || '');
  });
  var most = isBelow(version, [2, 4, 4]) ? 0 : 1;
  if (!isBelow(version, [2, 8, 4])) most = 3;
  return mostTemplates && most ? Math.min(most, mostTemplates) : most;
}

/** An unreadable version is one of today's. */
function isBelow(version, other) {
  var parts = version.split('.');
  if (!/^\d+(\.\d+)+/.test(version)) return false;
  for (var i = 0; i < other.length; i += 1) {
    var part = parseInt(parts[i], 10) || 0;
    if (part !== other[i]) return part < other[i];
  }
  return false;
}

// -- opting out -----------------------------------------------------------------------------------

/**
 * Say that the user wants no more messages, from a switch of the page.
 *
 * The wish is kept until the service has it: where it is away, it is told with the next upload, also
 * after the mini-program was killed. The last wish counts.
 *
 * @param {Function} [done] called once with {out, stored}: what the user wishes, and whether the
 *     service has it; if not, it will be told.
 */
function optOut(done) {
  opt(true, done);
}

/**
 * Take that back; as `optOut`. What an operator said of the user stays.
 *
 * @param {Function} [done] as of `optOut`.
 */
function optIn(done) {
  opt(false, done);
}

function opt(out, done) {
  load();
  wish = {id: newId(), out: out};
  wishIsRefused = false;
  plan = null; // who wants none is asked for none
  save();
  wishers.push(once(done));
  if (!config || isHeld()) answerWishers(false);
  else tellWish();
}

/** Tell the service what the user wishes, if it does not know. */
function tellWish() {
  if (!wish || !config || wishIsRefused || isHeld() || !begin('wish')) return;
  var told = wish;
  var method = told.out ? 'DELETE' : 'PUT';
  authorised(method, '/opt-in', null, TIMEOUT_MS, function (status, data, header) {
    end('wish');
    var isStored = status === 200 && Boolean(data) && data.out === told.out;
    if (wish && wish.id !== told.id) return tellWish(); // the user thought better of it meanwhile
    if (isStored) {
      failures = 0;
      wish = null;
      save();
    } else if (status === 404 || status === 405 || isMalformed(status)) {
      wishIsRefused = true; // it may know the door at the next start
    } else {
      hold(status, header);
    }
    answerWishers(isStored, told.out);
  });
}

function answerWishers(isStored, out) {
  var all = wishers;
  wishers = [];
  for (var i = 0; i < all.length; i += 1) all[i]({out: wish ? wish.out : out, stored: isStored});
}

// -- the plan -------------------------------------------------------------------------------------

/** Fetch the plan in advance, in a page's onShow, so that the popup comes at once. */
function prepare() {
  load();
  if (!config || isHeld() || freshPlan() || !begin('plan')) return;
  withTicket(function (token) {
    if (!token) return end('plan');
    authorised('GET', PLAN_PATH, null, TIMEOUT_MS, function (status, data, header) {
      end('plan');
      if (!keepPlan(status, data)) hold(status, header);
    });
  });
}

/** Give the plan, or null; never logs in, which would cost the right of the tap. */
function planNow(done) {
  if (freshPlan() || !config || isHeld() || !ticketIsGood()) return done(freshPlan());
  var token = ticket.token;
  call(
    {method: 'GET', path: PLAN_PATH, token: token, timeout: TAP_TIMEOUT_MS},
    function (status, data) {
      if (status === 401) drop(token);
      done(keepPlan(status, data));
    }
  );
}

function keepPlan(status, data) {
  if (status !== 200 || !data || !isArray(data.templates)) return null;
  var ids = [];
  for (var i = 0; i < data.templates.length; i += 1) {
    if (data.templates[i]) ids.push(data.templates[i].template_id);
  }
  plan = {ids: unique(ids), skip: isArray(data.skip) ? unique(data.skip) : [], at: Date.now()};
  return plan;
}

function freshPlan() {
  var age = plan ? Date.now() - plan.at : -1;
  return age >= 0 && age < PLAN_MS ? plan : null;
}

// -- uploading ------------------------------------------------------------------------------------

/** Upload what waits, a batch after the other; in an App's onHide, or whenever it suits. */
function upload() {
  load();
  tellWish();
  if (!config || !(codes.length || results.length) || isHeld() || !begin('upload')) return;
  withTicket(function (token) {
    if (!token) return end('upload');
    var batch = cut(); // only now: the login has told the time
    if (!batch.uploads.length) return end('upload');
    authorised('POST', '/collect', batch.uploads, TIMEOUT_MS, function (status, data, header) {
      end('upload');
      // a page in between may say 200 as well
      if (status === 200 && data && typeof data['new'] === 'number') {
        failures = 0;
        refusals = 0;
        remove(batch);
        upload();
        if (batch.results.length) prepare(); // by what the user has now
      } else if (isMalformed(status) && (refusals += 1) >= REFUSALS) {
        warn('the service refused an upload ' + REFUSALS + ' times (' + status + '): left out');
        refusals = 0;
        remove(batch);
      } else {
        hold(status, header);
      }
    });
  });
}

/** The service's word on this very upload; a wrong app or address (403, 404) may be mended. */
function isMalformed(status) {
  return status === 400 || status === 413 || status === 422;
}

/** Return the next batch; what has expired is left out for good. */
function cut() {
  var now = nowMs();
  var alive = [];
  var formIds = [];
  var uploads = [];
  var i;
  for (i = 0; i < codes.length; i += 1) if (now - codes[i].at < WEEK_MS) alive.push(codes[i]);
  if (alive.length < codes.length) {
    codes = alive;
    save();
  }
  var batch = {codes: codes.slice(0, BATCH_CODES), results: results.slice(0, BATCH_RESULTS)};
  for (i = 0; i < batch.codes.length; i += 1) {
    formIds.push({
      formId: batch.codes[i].formId,
      expire: Math.min(batch.codes[i].at, now) + WEEK_MS // a clock set back is no longer life
    });
  }
  if (formIds.length) uploads.push({formIds: formIds});
  for (i = 0; i < batch.results.length; i += 1) {
    uploads.push({
      id: batch.results[i].id,
      at: Math.min(batch.results[i].at, now),
      subscriptions: batch.results[i].subscriptions
    });
  }
  batch.uploads = uploads;
  return batch;
}

/** Take a batch off the lists; what came meanwhile stays. */
function remove(batch) {
  codes = without(codes, batch.codes, 'formId');
  results = without(results, batch.results, 'id');
  save();
}

function without(list, gone, key) {
  var names = {};
  var left = [];
  var i;
  for (i = 0; i < gone.length; i += 1) names['$' + gone[i][key]] = true;
  for (i = 0; i < list.length; i += 1) if (!names['$' + list[i][key]]) left.push(list[i]);
  return left;
}

/**
 * wx.request, and what waits goes with it: the radio is awake anyway. The page's own goes first.
 *
 * @param {Object} options as wx.request takes them.
 * @returns {RequestTask} as wx.request returns it.
 */
function request(options) {
  var task = wx.request(options);
  upload();
  return task;
}

// -- the service ----------------------------------------------------------------------------------

/**
 * Say where the service is; in the App's onLaunch.
 *
 * @param {{url: string, app: string}} options the service's address, one of the mini-program's
 *     request domains, and the app's alias there.
 * @throws {Error} the one error this file throws: one of them is not to be used.
 */
function start(options) {
  var url = String((options && options.url) || '').replace(/\/+$/, '');
  var app = String((options && options.app) || '');
  if (!/^https?:\/\/[^\/?#\s]+(\/[^?#\s]*)?$/.test(url)) {
    throw new Error("push-code: url must be the service's, such as https://push.example.com");
  }
  if (!/^[a-z0-9][a-z0-9_-]{0,31}$/.test(app)) {
    throw new Error("push-code: app must be the app's alias at the service, such as shop");
  }
  config = {url: url, app: app};
  if (!hidesSeen && typeof wx.onAppHide === 'function') {
    hidesSeen = true;
    wx.onAppHide(function () {
      upload();
    });
  }
  upload(); // what the last run left over
}

/** Give a good ticket, by a login if need be, or '' when there is none now. */
function withTicket(done) {
  if (ticketIsGood()) return done(ticket.token);
  if (isHeld()) return done('');
  if (!begin('login')) {
    waiters.push(done);
    return;
  }
  waiters = [done];
  var finish = once(function (token) {
    var all = waiters;
    waiters = [];
    end('login');
    for (var i = 0; i < all.length; i += 1) all[i](token);
  });
  function fail(status, header) {
    hold(status, header);
    finish('');
  }
  attempt(
    function () {
      wx.login({
        timeout: TIMEOUT_MS,
        success: function (res) {
          if (!res || !res.code) return fail(0);
          call(
            {
              method: 'POST',
              path: '/login',
              body: {code: res.code},
              token: earlierToken(), // so that it waits behind no bad codes of the same address
              timeout: TIMEOUT_MS
            },
            function (status, data, header) {
              var lifeMs = data && data.expires_in_s * 1000;
              if (status !== 200 || !data || !data.token || !(lifeMs > 0)) {
                return fail(status, header);
              }
              ticket = {
                token: String(data.token),
                until: Date.now() + lifeMs * 0.9, // not on the last second
                life: lifeMs,
                of: config.url + ' ' + config.app
              };
              save();
              finish(ticket.token);
            }
          );
        },
        fail: function () {
          fail(0);
        }
      });
    },
    function () {
      fail(0);
    }
  );
}

/** By the phone's clock, which may have been set since; a ticket that is not is renewed by a 401. */
function ticketIsGood() {
  if (!ticket || !config || ticket.of !== config.url + ' ' + config.app) return false;
  var leftMs = ticket.until - Date.now();
  return leftMs > 0 && leftMs <= ticket.life;
}

/** The last ticket of this service, good or not: it says who was here before, and nothing else. */
function earlierToken() {
  return ticket && ticket.of === config.url + ' ' + config.app ? ticket.token : '';
}

/** A ticket was not taken; another one, by a login meanwhile, stays. */
function drop(token) {
  if (ticket && ticket.token === token) ticket.until = 0;
}

/** Call with a ticket; one that is not taken is renewed, once. */
function authorised(method, path, body, timeout, done) {
  withTicket(function (token) {
    if (!token) return done(0, null, null);
    var options = {method: method, path: path, body: body, token: token, timeout: timeout};
    call(options, function (status, data, header) {
      if (status !== 401) return done(status, data, header);
      drop(token);
      withTicket(function (renewed) {
        if (!renewed) return done(401, data, header);
        options.token = renewed;
        call(options, function (again, more, head) {
          if (again === 401) drop(renewed);
          done(again, more, head);
        });
      });
    });
  });
}

/** One request; done(status, data, header), status 0 when there was no answer. Never throws. */
function call(options, done) {
  var answer = once(done);
  var askedAt = Date.now();
  var header = {'content-type': 'application/json'};
  if (options.token) header.Authorization = 'Bearer ' + options.token;
  var sent = {
    url: config.url + '/v1/apps/' + config.app + options.path,
    method: options.method,
    header: header,
    dataType: 'json',
    timeout: options.timeout,
    success: function (res) {
      learnTime(headerOf(res.header, 'date'), askedAt);
      answer(res.statusCode, res.data, res.header);
    },
    fail: function () {
      answer(0, null, null);
    }
  };
  if (options.body) sent.data = JSON.stringify(options.body);
  attempt(
    function () {
      wx.request(sent);
    },
    function () {
      answer(0, null, null);
    }
  );
}

/** After a failure nothing is sent for a while; a server that says for how long is believed. */
function hold(status, header) {
  var pauseMs = Math.min(PAUSE_MS * Math.pow(2, failures), LONGEST_PAUSE_MS);
  var saidMs = parseInt(headerOf(header, 'retry-after'), 10) * 1000;
  failures = Math.min(failures + 1, 20);
  pauseMs *= 0.5 + Math.random() / 2; // so that not all phones come back at once
  if (saidMs > 0) pauseMs = Math.max(pauseMs, Math.min(saidMs, LONGEST_PAUSE_MS));
  var now = Date.now();
  heldUntil = isHeld() ? Math.max(heldUntil, now + pauseMs) : now + pauseMs;
  heldFrom = now;
}

function isHeld() {
  var now = Date.now();
  return now >= heldFrom && now < heldUntil; // a clock that is set back ends it
}

// -- time -----------------------------------------------------------------------------------------

/** The service's time, as well as it is known. */
function nowMs() {
  return Date.now() + skewMs;
}

/**
 * Learn the service's time from the Date of an answer.
 *
 * What was gathered since the answer before was dated with the old idea, and moves along; where
 * that would make it expired, the clock was set after it was gathered.
 */
function learnTime(date, askedAt) {
  var now = Date.now();
  var served = date ? Date.parse(date) : NaN;
  if (!(served > 0) || now < askedAt || now - askedAt > TURN_MS) return;
  var found = Math.round(served + 500 - (askedAt + now) / 2); // the header has whole seconds
  var change = Math.abs(found - skewMs) < 2000 ? 0 : found - skewMs;
  var isNews = change !== 0;
  skewMs += change;
  for (var i = 0; i < codes.length + results.length; i += 1) {
    var item = i < codes.length ? codes[i] : results[i - codes.length];
    if (!item.sure) {
      item.sure = true;
      if (item.at + change > nowMs() - WEEK_MS) item.at += change; // else the old idea was right
      isNews = true;
    }
  }
  if (isNews) save();
}

// -- storage --------------------------------------------------------------------------------------

function load() {
  if (codes) return;
  codes = [];
  var kept = null;
  attempt(function () {
    kept = JSON.parse(wx.getStorageSync(STORAGE_KEY) || 'null');
  });
  if (!kept || kept.version !== VERSION) return;
  codes = valid(kept.codes, function (code) {
    return isFormId(code.formId);
  }).slice(-MOST_CODES);
  results = valid(kept.results, function (result) {
    return typeof result.id === 'string' && result.subscriptions !== null &&
      typeof result.subscriptions === 'object';
  }).slice(-MOST_RESULTS);
  skewMs = isFinite(kept.skewMs) ? Number(kept.skewMs) : 0;
  mostTemplates = kept.mostTemplates === 1 ? 1 : 0;
  if (kept.wish && typeof kept.wish.out === 'boolean') wish = kept.wish;
  if (kept.ticket && typeof kept.ticket.token === 'string') ticket = kept.ticket;
}

function valid(list, isValid) {
  var good = [];
  if (!isArray(list)) return good;
  for (var i = 0; i < list.length; i += 1) {
    if (list[i] && typeof list[i].at === 'number' && isValid(list[i])) good.push(list[i]);
  }
  return good;
}

/** Where the storage is full, memory serves until the app ends. */
function save() {
  attempt(function () {
    wx.setStorageSync(
      STORAGE_KEY,
      JSON.stringify({
        version: VERSION,
        codes: codes,
        results: results,
        wish: wish,
        ticket: ticket,
        skewMs: skewMs,
        mostTemplates: mostTemplates
      })
    );
  });
}

// -- small words ----------------------------------------------------------------------------------

/** Take a turn; false while another has it. */
function begin(name) {
  var ageMs = has(turns, name) ? Date.now() - turns[name] : -1;
  if (ageMs >= 0 && ageMs < TURN_MS) return false;
  turns[name] = Date.now();
  return true;
}

function end(name) {
  delete turns[name];
}

function once(done) {
  var isDone = typeof done !== 'function';
  return function () {
    if (isDone) return;
    isDone = true;
    done.apply(null, arguments);
  };
}

function attempt(work, failed) {
  try {
    work();
  } catch (error) {
    warn(error && error.message);
    if (failed) failed();
  }
}

function warn(text) {
  if (typeof console !== 'undefined' && console.warn) console.warn('push-code: ' + text);
}

function headerOf(header, name) {
  for (var key in header) {
    if (has(header, key) && key.toLowerCase() === name) return String(header[key]);
  }
  return '';
}

function unique(list) {
  var found = [];
  if (typeof list === 'string') return [list];
  for (var i = 0; isArray(list) && i < list.length; i += 1) {
    if (typeof list[i] === 'string' && list[i] && found.indexOf(list[i]) < 0) found.push(list[i]);
  }
  return found;
}

function copy() {
  var made = {};
  for (var i = 0; i < arguments.length; i += 1) {
    for (var key in arguments[i]) if (has(arguments[i], key)) made[key] = arguments[i][key];
  }
  return made;
}

function newId() {
  var id = nowMs().toString(36);
  for (var i = 0; i < 3; i += 1) id += '-' + Math.random().toString(36).slice(2, 10);
  return id;
}

function has(object, key) {
  return Object.prototype.hasOwnProperty.call(object, key);
}

function isArray(thing) {
  return Object.prototype.toString.call(thing) === '[object Array]';
}

module.exports = {
  collect: collect,
  optIn: optIn,
  optOut: optOut,
  page: page,
  prepare: prepare,
  request: request,
  start: start,
  subscribe: subscribe,
  tap: tap,
  upload: upload
};
