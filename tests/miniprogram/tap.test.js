'use strict';
// A page's click handlers, moved from bindtap to bindsubmit.

const {test} = require('node:test');
const assert = require('node:assert');
const {Phone, opened} = require('./phone');

const plain = (value) => JSON.parse(JSON.stringify(value));

test("the handler finds the form's and the button's data in currentTarget.dataset", () => {
  const {phone, pushCode} = opened();
  const seen = [];
  const open = pushCode.tap((event) => seen.push(event.currentTarget.dataset));
  open(Phone.submit('f1', {form: {id: 7, from: 'form'}, button: {from: 'button', kind: 'item'}}));
  assert.deepStrictEqual(plain(seen), [{id: 7, from: 'button', kind: 'item'}]);
  assert.deepStrictEqual(phone.waiting(), ['f1']);
});

test('target is the button, as in a tap', () => {
  const {pushCode} = opened();
  const targets = [];
  const open = pushCode.tap((event) => targets.push(event.target.dataset));
  open(Phone.submit('f1', {button: {id: 7}}));
  assert.deepStrictEqual(plain(targets), [{id: 7}]);
});

test('a form that is one keeps its values', () => {
  const {pushCode} = opened();
  const values = [];
  const search = pushCode.tap((event) => values.push(event.detail.value));
  search(Phone.submit('f1', {value: {words: '茶'}}));
  assert.deepStrictEqual(plain(values), [{words: '茶'}]);
});

test('the event that WeChat gave is left as it was', () => {
  const {pushCode} = opened();
  const event = Phone.submit('f1', {form: {id: 7}, button: {kind: 'item'}});
  const before = JSON.stringify(event);
  pushCode.tap(() => 0)(event);
  assert.strictEqual(JSON.stringify(event), before);
});

test('a handler is called as ever: this, further arguments, and what it returns', () => {
  const {pushCode} = opened();
  const spec = pushCode.page({
    data: {count: 0},
    add(event, more) {
      this.data.count += more;
      return this.data.count;
    },
  });
  assert.strictEqual(spec.add(Phone.submit('f1'), 2), 2);
  assert.strictEqual(spec.add({type: 'tap', currentTarget: {dataset: {}}}, 3), 5);
});

test('a tap, a lifecycle call and a component event pass untouched', () => {
  const {phone, pushCode} = opened();
  const seen = [];
  const spec = pushCode.page({onLoad: (query) => seen.push(query), pick: (event) => seen.push(event)});
  const things = [{id: '7'}, undefined, {type: 'tap', detail: {x: 1, y: 2}}, {type: 'submit'}];
  for (const thing of things) {
    spec.onLoad(thing);
    spec.pick(thing);
  }
  assert.ok(things.every((thing, n) => seen[2 * n] === thing && seen[2 * n + 1] === thing));
  assert.deepStrictEqual(phone.waiting(), []);
});

test('what a handler throws is its own, and the form_id is safe by then', () => {
  const {phone, pushCode} = opened();
  const broken = pushCode.tap(() => {
    throw new TypeError('of the page');
  });
  assert.throws(() => broken(Phone.submit('f1')), /of the page/);
  assert.deepStrictEqual(phone.waiting(), ['f1']);
});

test('page() leaves data as it is and gives the same object back', () => {
  const {pushCode} = opened();
  const data = {items: []};
  const spec = {data, open() {}};
  assert.strictEqual(pushCode.page(spec), spec);
  assert.strictEqual(spec.data, data);
});

test('a submit without targets, as a simulator may send it, still reaches the handler', () => {
  const {pushCode} = opened();
  const seen = [];
  pushCode.tap((event) => seen.push(event.currentTarget.dataset))({
    type: 'submit',
    detail: {formId: 'the formId is a mock one'},
  });
  assert.deepStrictEqual(plain(seen), [{}]);
});
