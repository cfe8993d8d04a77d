#!/bin/sh
# Fresh passwords and a key in, the two Secrets of the manifests out: docker/kubernetes/secret.sh | kubectl apply -f -
# Each program gets the URLs that it needs and no other; rerun it and restart everything to change them.
# The key that signs receipts is for good: a rerun cannot replace it (immutable), and kubectl says so. Keep a copy.
set -eu
key=$(openssl genpkey -algorithm ed25519 | sed 's/^/    /')
redis=$(openssl rand -hex 24)
door=$(openssl rand -hex 24)
cat <<YAML
apiVersion: v1
kind: Secret
metadata: {name: laescan, namespace: laescan}
stringData:
  redis-password: $redis
  redis-url: redis://:$redis@laescan-redis:6379/0
  cache-url: redis://:$redis@laescan-cache:6379/0
  egress-proxy: http://laescan:$door@laescan-door:3128
---
apiVersion: v1
kind: Secret
metadata: {name: laescan-receipt, namespace: laescan}
immutable: true
stringData:
  receipt.key: |
$key
YAML
