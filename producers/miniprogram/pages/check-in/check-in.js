var pushCode = require('../../push-code.js');

// what this page asks for; the service says which of them this user has enough of
var TEMPLATES = [
  'CHECK_IN_REMINDER_TEMPLATE_ID',
  'EVENT_TEMPLATE_ID'
];

Page(pushCode.page({
  data: {items: [{id: 7, name: '茶'}, {id: 8, name: '咖啡'}], day: 1, told: ''},

  onShow: function () {
    pushCode.prepare(); // so that the popup comes at once
  },

  openItem: function (event) {
    wx.navigateTo({url: '/pages/item/item?id=' + event.currentTarget.dataset.id});
  },

  checkIn: function (event) {
    var self = this;
    var day = event.currentTarget.dataset.day;
    // the app's own request, and what was gathered goes with it
    pushCode.request({
      url: 'https://shop.example.com/check-in',
      method: 'POST',
      data: {day: day},
      success: function () {
        self.setData({told: '已签到'});
      }
    });
  },

  remindMe: function () {
    var self = this;
    pushCode.subscribe(TEMPLATES, function (answer) {
      self.setData({told: answer.errCode ? '现在不行' : '好的'});
    });
  }
}));
