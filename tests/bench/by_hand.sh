#!/usr/bin/env bash
# The same cycle, typed by hand as the blog post does it: one host after the other, a connection for each command.
#   by_hand.sh deploy TARBALL VERSION PORT...    by_hand.sh promote COLOR PORT...
# Ports are those of sshd on 127.0.0.1; KEY is the ssh key, STATE a directory for the version files. Which slot is idle is asked on
# the host, because the hosts of the benchmark share an address.
set -e
SSH_WORDS="-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -i $KEY"
APP=sample_app

on() { # PORT COMMAND...
  local port=$1
  shift
  ssh $SSH_WORDS -p "$port" deploy@127.0.0.1 "$@"
}

prepare() { # PORT: what the post does once on a server
  local color number
  for color in blue green; do
    number=$([ "$color" = blue ] && echo 4100 || echo 5100)
    on "$1" "sudo tee /etc/nginx/sites-available/hand-$color >/dev/null" <<SITE
upstream hand-$color { server 127.0.0.1:$number max_fails=5 fail_timeout=60s; }
server {
  server_name hand.test;
  listen 80;
  location /deployment_id { return 200 "$color"; }
  location / {
    proxy_http_version 1.1;
    proxy_set_header Host \$http_host;
    proxy_set_header Upgrade \$http_upgrade;
    proxy_set_header Connection "upgrade";
    proxy_pass http://hand-$color;
  }
}
SITE
  done
  on "$1" "sudo ln -sf /etc/nginx/sites-available/hand-blue /etc/nginx/sites-enabled/hand.test && sudo systemctl reload nginx"
}

deploy_one() { # TARBALL VERSION PORT
  local tarball=$1 version=$2 port=$3 live slot env file old
  on "$port" mkdir -p "$APP/$version"
  scp -q $SSH_WORDS -P "$port" "$STATE/env" "deploy@127.0.0.1:$APP/.env"
  scp -q $SSH_WORDS -P "$port" "$tarball" "deploy@127.0.0.1:$APP/release.tar.gz"
  on "$port" tar -xzf "$APP/release.tar.gz" -C "$APP/$version"
  live=$(on "$port" curl -s -H "Host:hand.test" http://127.0.0.1/deployment_id)
  if [ "$live" = blue ]; then
    slot=green env="RELEASE_NODE=hand_green"
  else
    slot=blue env="RELEASE_NODE=hand_blue"
  fi
  file=$STATE/$port-${slot}_version.txt
  if [ -f "$file" ]; then
    old=$(cat "$file")
    if on "$port" "$env $APP/$old/bin/$APP pid" >/dev/null 2>&1; then
      on "$port" "$env $APP/$old/bin/$APP stop" >/dev/null
      while on "$port" "$env $APP/$old/bin/$APP pid" >/dev/null 2>&1; do :; done
    fi
  fi
  on "$port" "set -a && . ~/$APP/.env && PORT=$([ $slot = blue ] && echo 4100 || echo 5100) $env $APP/$version/bin/$APP daemon"
  echo "$version" >"$file"
  on "$port" rm "$APP/release.tar.gz"
}

promote_one() { # COLOR PORT
  local live
  live=$(on "$2" curl -s -H "Host:hand.test" http://127.0.0.1/deployment_id)
  [ "$live" != "$1" ] || return 0
  on "$2" "sudo ln -sf /etc/nginx/sites-available/hand-$1 /etc/nginx/sites-enabled/hand.test && sudo systemctl reload nginx"
}

what=$1
shift
case $what in
  prepare) for port in "$@"; do prepare "$port"; done ;;
  deploy)
    tarball=$1 version=$2
    shift 2
    for port in "$@"; do deploy_one "$tarball" "$version" "$port"; done
    ;;
  promote)
    color=$1
    shift
    for port in "$@"; do promote_one "$color" "$port"; done
    ;;
esac
