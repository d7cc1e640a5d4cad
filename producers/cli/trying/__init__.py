"""Commands that let one try it: a deployment, a WeChat, a show; a command imports no other one."""
