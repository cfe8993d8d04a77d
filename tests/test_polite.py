"""When a host may be asked: played on a clock of our own, second by second."""

import random

from scanner.bulk.polite import BREAKS_S, STRIKES, Hosts, Policy


class Web:
    """Hosts that answer as told, and a scheduler that asks them for some seconds."""

    def __init__(self, policy=None, answer=lambda _host, _now: "answered", takes_s=0.05):
        self.hosts = Hosts(policy or Policy())
        self.answer, self.takes_s = answer, takes_s
        self.now, self.running, self.asked, self.ended = 0.0, [], [], []

    def play(self, seconds):
        end = self.now + seconds
        while self.now < end:
            for due, turn in [one for one in self.running if one[0] <= self.now]:
                self.running.remove((due, turn))
                ending = self.answer(turn.host, self.now)
                wait = 1.0 if ending == "busy" else None
                self.hosts.ended(turn, ending, self.now, retry_after_s=wait)
                if ending != "answered":
                    self.hosts.add(turn.host, turn.item)
            while (turn := self.hosts.next(self.now)) is not None:
                if turn.given_up:
                    self.ended.append(turn.item)
                    continue
                self.asked.append((self.now, turn.host))
                self.running.append((self.now + self.takes_s, turn))
            self.now += 0.01

    def add(self, host, count):
        for number in range(count):
            self.hosts.add(host, number)

    def times(self, host):
        return [now for now, asked in self.asked if asked == host]


def test_rate_and_connections_of_a_host_are_kept():
    web = Web(Policy(per_host=3, per_host_rate=10.0))
    web.add("a", 200)
    web.play(5)
    assert 45 <= len(web.times("a")) <= 51
    slow = Web(Policy(per_host=3), takes_s=1.0)
    slow.add("a", 200)
    slow.play(5.5)
    assert len(slow.running) == 3


def test_a_slow_host_holds_up_no_other():
    web = Web(Policy(per_host=2), takes_s=0.1)
    web.add("slow", 1)
    web.hosts.next(0.0)  # never ends
    web.add("fast", 30)
    web.play(5)
    assert len(web.times("fast")) == 30


def test_host_that_limits_sees_hardly_more_than_it_allows():
    for allowed in (2.0, 5.0, 12.0):
        tokens, last = [1.0], [0.0]

        def answer(_host, now, tokens=tokens, last=last, allowed=allowed):
            tokens[0], last[0] = min(1.0, tokens[0] + (now - last[0]) * allowed), now
            if tokens[0] < 1:
                return "busy"
            tokens[0] -= 1
            return "answered"

        web = Web(Policy(per_host_rate=25.0), answer)
        web.add("a", 5000)
        web.play(120)
        assert 0.6 * allowed * 120 <= len(web.times("a")) <= 1.2 * allowed * 120


def test_dead_host_costs_a_few_tries_and_is_given_up():
    web = Web(answer=lambda _host, _now: "failed", takes_s=1.0)
    web.add("dead", 500)
    web.play(sum(BREAKS_S) + 60)
    assert len(web.times("dead")) <= STRIKES + 1 + 2 * len(BREAKS_S)
    assert len(web.ended) >= 500
    assert web.hosts.waiting == 0


def test_host_that_recovers_is_asked_again():
    web = Web(answer=lambda _host, now: "failed" if now < 8 else "answered", takes_s=0.5)
    web.add("a", 60)
    web.play(60)
    assert web.hosts.waiting == 0
    assert not web.ended


def test_what_asks_nobody_costs_no_turn():
    web = Web(Policy(per_host_rate=1.0), answer=lambda _host, _now: "refused", takes_s=0.0)
    web.hosts.add("a", 0)
    turn = web.hosts.next(0.0)
    web.hosts.ended(turn, "refused", 0.0)
    web.hosts.add("a", 1)
    assert web.hosts.next(0.01) is not None


def test_a_million_healthy_hosts_leave_nothing_behind():
    hosts = Hosts(Policy())
    for number in range(3000):
        hosts.add(f"h{number}", number)
        turn = hosts.next(float(number))
        hosts.ended(turn, "answered", number + 0.5)
    assert len(hosts._hosts) == 0


def test_turns_are_shared_by_all_hosts():
    hosts = Hosts(Policy(per_host=1))
    for number in range(30):
        hosts.add(random.choice("abc"), number)
    first = [hosts.next(0.0).host for _ in range(3)]
    assert sorted(first) == ["a", "b", "c"]
