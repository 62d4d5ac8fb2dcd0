# Durable Objects on disk. `preventEviction`: without it an object that idles for 10 s is closed, checkpointed and
# opened again. Address and directory are given on the command line.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "main", worker = .bank),
    (name = "disk", disk = (path = "data", writable = true)),
  ],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);

const bank :Workerd.Worker = (
  modules = [(name = "worker.js", esModule = embed "worker.js")],
  compatibilityDate = "2025-06-01",
  durableObjectNamespaces = [
    (className = "Account", uniqueKey = "actord-bench-account", enableSql = true, preventEviction = true),
  ],
  durableObjectStorage = (localDisk = "disk"),
  bindings = [(name = "ACCOUNT", durableObjectNamespace = "Account")],
);
