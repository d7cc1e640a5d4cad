// The sample mini-program: this folder opens in WeChat's devtools as it stands.
var pushCode = require('./push-code.js');

App({
  onLaunch: function () {
    // the service's address is one of the mini-program's request domains
    pushCode.start({url: 'https://push.example.com', app: 'shop'});
  },
  onHide: function () {
    pushCode.upload(); // for WeChat whose library has no wx.onAppHide; twice does no harm
  }
});
