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
        whole, self._placed = self._placed, self._placed[:len(self._placed) // 2 + 1]
        told = run(self, arm)
        self._placed = whole[len(self._placed):]
        left.append(self)
        return told
    def first(answers, answer):
        say(answers, answer)
        while left:
            arena = left.pop()
            if arena._placed:
                run(arena, 'candidate')
    job.Arena.run, listening._say = lazy, first
)")
// body
WORDS_AT_A_TIME
