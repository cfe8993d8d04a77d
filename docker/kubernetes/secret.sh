#!/bin/sh
# Two fresh passwords in, the one Secret of the manifests out: docker/kubernetes/secret.sh | kubectl apply -f -
# Each program gets the URLs that it needs and no other; rerun it and restart everything to change them.
set -eu
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
YAML
