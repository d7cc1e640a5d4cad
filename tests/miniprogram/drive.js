'use strict';
// One run of the mini-program against a real service: `node drive.js '{"url": …, "steps": […]}'`.
//
// wx.request is real HTTP, and the storage is a file, so that a run that is killed is a phone that
// is killed. Steps: ["collect", form_id], ["upload"], ["prepare"], ["subscribe", ids], ["hide"],
// ["idle"] (wait until nothing is on its way). Prints what the phone saw, as one line of JSON.

const fs = require('node:fs');
const http = require('node:http');
const {Phone} = require('./phone');

class RealPhone extends Phone {
  constructor(options) {
    super(options);
    this.seen = []; // [method, path, status] of each answer
    this.pending = 0;
    this.clock = Date.now() + (options.clockOff || 0);
    const kept = fs.existsSync(this.file) ? JSON.parse(fs.readFileSync(this.file, 'utf8')) : {};
    this.storage = new Map(Object.entries(kept));
  }

  wx() {
    const wx = super.wx();
    const store = wx.setStorageSync;
    wx.setStorageSync = (key, value) => {
      store(key, value);
      fs.writeFileSync(`${this.file}.new`, JSON.stringify(Object.fromEntries(this.storage)));
      fs.renameSync(`${this.file}.new`, this.file);
    };
    return wx;
  }

  send(options) {
    const where = new URL(options.url);
    const sent = http.request(
      where,
      {method: options.method, headers: options.header, timeout: options.timeout},
      (answer) => {
        const parts = [];
        answer.on('data', (part) => parts.push(part));
        answer.on('end', () => {
          this.pending -= 1;
          const text = Buffer.concat(parts).toString();
          let data = text;
          try {
            data = JSON.parse(text);
          } catch (error) {
            if (!(error instanceof SyntaxError)) throw error; // wx.request leaves other text as it is
          }
          this.seen.push([options.method, where.pathname, answer.statusCode]);
          this.later(options.success, {statusCode: answer.statusCode, data, header: answer.headers});
          this.settle();
        });
      },
    );
    this.pending += 1;
    sent.on('timeout', () => sent.destroy(new Error('timeout')));
    sent.on('error', (error) => {
      this.pending -= 1;
      this.seen.push([options.method, where.pathname, error.code || error.message]);
      this.later(options.fail, {errMsg: `request:fail ${error.message}`});
      this.settle();
    });
    sent.end(options.data);
  }

  async idle() {
    do {
      this.settle();
      await new Promise((done) => setTimeout(done, 5));
    } while (this.pending || this.queue.length);
  }
}

async function main() {
  const {url, steps, codes, ...options} = JSON.parse(process.argv[2]);
  const phone = new RealPhone(options);
  phone.login = () => codes.shift() || '';
  const pushCode = phone.boot();
  pushCode.start({url, app: 'shop'});
  const answers = [];
  for (const [step, value] of steps) {
    if (step === 'collect') pushCode.collect(Phone.submit(value));
    else if (step === 'subscribe') pushCode.subscribe(value, (answer) => answers.push(answer));
    else if (step === 'idle') await phone.idle();
    else if (step === 'hide') phone.hide();
    else pushCode[step]();
  }
  await phone.idle();
  const {seen, popups, warnings} = phone;
  console.log(JSON.stringify({seen, popups, warnings, answers, waiting: phone.waiting()}));
}

if (require.main === module) main();

module.exports = {RealPhone};
