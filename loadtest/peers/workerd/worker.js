// The bank as a Durable Object. The paths and bodies are those of an actord call, so that wrk sends the same bytes.
// workerd's output gate holds a reply back until the object's writes are on the disk.
import { DurableObject } from "cloudflare:workers";

export class Account extends DurableObject {
  async balance() {
    return (await this.ctx.storage.get("balance")) ?? 0;
  }

  async deposit(amount) {
    const balance = (await this.balance()) + amount;
    await this.ctx.storage.put("balance", balance);
    return balance;
  }

  async debit(amount) {
    const balance = await this.balance();
    if (balance < amount) return { ok: false, balance };
    await this.ctx.storage.put("balance", balance - amount);
    return { ok: true, balance: balance - amount };
  }
}

export default {
  async fetch(request, env) {
    const [, , , name, method] = new URL(request.url).pathname.split("/");
    const account = env.ACCOUNT.get(env.ACCOUNT.idFromName(name));
    const { amount } = await request.json();
    return Response.json(method === "deposit" ? await account.deposit(amount) : await account.debit(amount));
  },
};
