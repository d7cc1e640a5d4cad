'use strict';
// The README's mini-program on a phone: `node readme_page.js '{"url": …, "js": …, "html": …}'`.
//
// Its JavaScript runs as it stands, app.js and the page, against the real service at `url` in the
// place of https://push.example.com. The user opens an item by the form's button and taps for a
// reminder. Prints what the phone saw, as one line of JSON.

const vm = require('node:vm');
const {RealPhone} = require('../miniprogram/drive');
const {Phone} = require('../miniprogram/phone');

async function main() {
  const {url, js, html, file, codes} = JSON.parse(process.argv[2]);
  const phone = new RealPhone({file});
  phone.login = () => codes.shift() || '';
  const pushCode = phone.boot();
  const required = [];
  const require_ = (name) => {
    required.push(name);
    if (!name.endsWith('/push-code.js')) throw new Error(`no ${name}`);
    return pushCode;
  };
  const code = js.replaceAll('https://push.example.com', url);
  vm.runInContext(`(function (require) {${code}\n})`, phone.world)(require_);
  const [app, page] = phone.specs;
  app.onLaunch();
  page.onShow();
  await phone.idle();

  const form = html.match(/<form report-submit bindsubmit="(\w+)" data-id="(\w+)">.*form-type="submit"/);
  const was = html.match(/<view bindtap="(\w+)" data-id="(\w+)">/);
  page[was[1]]({type: 'tap', currentTarget: {dataset: {id: was[2]}}});
  page[form[1]](Phone.submit('readme-form-id', {form: {id: form[2]}, button: {}}));
  page.remindMe({type: 'tap', currentTarget: {dataset: {}}});
  await phone.idle();
  app.onHide();
  await phone.idle();
  const {seen, popups, visited, warnings} = phone;
  console.log(JSON.stringify({seen, popups, visited, warnings, required, waiting: phone.waiting()}));
}

main();
