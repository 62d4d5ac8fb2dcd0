// The bank as a Restate virtual object: one call at a time for each key, its state kept by the Restate server.
// Usage: NODE_PATH=.../node_modules node account.cjs PORT
const restate = require("@restatedev/restate-sdk");

const account = restate.object({
  name: "Account",
  handlers: {
    deposit: async (ctx, { amount }) => {
      const balance = ((await ctx.get("balance")) ?? 0) + amount;
      ctx.set("balance", balance);
      return balance;
    },
    debit: async (ctx, { amount }) => {
      const balance = (await ctx.get("balance")) ?? 0;
      if (balance < amount) return { ok: false, balance };
      ctx.set("balance", balance - amount);
      return { ok: true, balance: balance - amount };
    },
  },
});

// `listen` of the SDK takes every interface of the machine.
const handler = restate.endpoint().bind(account).http2Handler();
require("node:http2").createServer(handler).listen(Number(process.argv[2]), "127.0.0.1");
