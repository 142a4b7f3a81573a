"""The functions that call kernels in order, or share out their rows to threads, in the assembly language of LLVM."""

from __future__ import annotations

__all__ = ["SHARED", "SHARED_BYTES", "SHARED_CHAIN", "chain_text", "sharing_text"]


def chain_text(name: str) -> str:
    """Write a module with ``void name(void **table, int64_t count, int64_t times, int64_t part, int64_t parts)``.

    The table has ``count`` pairs: where the address of a function of `kernel_text` lies, and the function's arguments.
    They are called in order, ``times`` times, for one part of the rows. Both numbers are at least 1.
    """
    return f"""define void @{name}(ptr %table, i64 %count, i64 %times, i64 %part, i64 %parts) nounwind {{
entry:
  br label %turn
turn:
  %turns = phi i64 [ 0, %entry ], [ %turned, %over ]
  br label %pair
pair:
  %index = phi i64 [ 0, %turn ], [ %following, %pair ]
  %even = shl i64 %index, 1
  %odd = or i64 %even, 1
  %place = getelementptr ptr, ptr %table, i64 %even
  %next = getelementptr ptr, ptr %table, i64 %odd
  %entry_of = load ptr, ptr %place
  %function = load atomic ptr, ptr %entry_of monotonic, align 8
  %arguments = load ptr, ptr %next
  call void %function(ptr %arguments, i64 %part, i64 %parts)
  %following = add nuw nsw i64 %index, 1
  %more = icmp slt i64 %following, %count
  br i1 %more, label %pair, label %over
over:
  %turned = add nuw nsw i64 %turns, 1
  %again = icmp slt i64 %turned, %times
  br i1 %again, label %turn, label %done
done:
  ret void
}}
"""


# The fields that each chain sets, side by side in this order.
SHARED_CHAIN = "chain", "table", "count", "times", "helpers", "parts"
# The memory of a shared chain: offsets of its fields in bytes. The first four are written by several threads.
SHARED = {
    **{name: 64 * place for place, name in enumerate(("open", "next", "inside", "asleep"))},
    **{
        name: 256 + 8 * place
        for place, name in enumerate(("over", "patience", *SHARED_CHAIN, "sched_yield", "sem_wait", "sem_post"))
    },
    "semaphore": 384,
}
SHARED_BYTES = 448


def sharing_text(name: str) -> str:
    """Write a module with the function ``void name(void *shared, int64_t helps)``: threads compute parts of a chain.

    Fields of the memory at ``shared`` lie at the offsets in `SHARED`. A helper's call, with ``helps`` = 1, returns when
    ``over`` is set; a call with 0 has the chain computed once, part by part: each thread takes the next part when it
    is done with one, and the call returns when all parts are computed. The caller waits for no helper that has not yet
    begun.

    At most ``helpers`` count themselves as ``inside``, while they may read the other fields; the caller waits for 0
    before it returns. Without work, a helper looks ``patience`` times, yielding the processor in between, and then
    sleeps. ``asleep`` counts the helpers that nobody has woken: whoever takes one off, the caller or the helper itself,
    decides whether there is a post for it.
    """
    fields = "\n".join(f"  %{field} = getelementptr i8, ptr %shared, i64 {at}" for field, at in SHARED.items())
    claim = """
{who}.claim:
  %{who}.part = atomicrmw add ptr %next, i64 1 seq_cst
  %{who}.parts = load atomic i64, ptr %parts monotonic, align 8
  %{who}.is_left = icmp ult i64 %{who}.part, %{who}.parts
  br i1 %{who}.is_left, label %{who}.compute, label %{who}.done
{who}.compute:
  %{who}.function = load ptr, ptr %chain
  %{who}.table = load ptr, ptr %table
  %{who}.count = load i64, ptr %count
  %{who}.times = load i64, ptr %times
  call void %{who}.function(ptr %{who}.table, i64 %{who}.count, i64 %{who}.times, i64 %{who}.part, i64 %{who}.parts)
  br label %{who}.claim"""
    work = """
{when}:
  %{when}.end = load atomic i64, ptr %over seq_cst, align 8
  %{when}.is_over = icmp ne i64 %{when}.end, 0
  br i1 %{when}.is_over, label %{stop}, label %{when}.look
{when}.look:
  %{when}.open = load atomic i64, ptr %open seq_cst, align 8
  %{when}.next = load atomic i64, ptr %next monotonic, align 8
  %{when}.parts = load atomic i64, ptr %parts monotonic, align 8
  %{when}.inside = load atomic i64, ptr %inside monotonic, align 8
  %{when}.helpers = load atomic i64, ptr %helpers monotonic, align 8
  %{when}.is_open = icmp ne i64 %{when}.open, 0
  %{when}.is_left = icmp ult i64 %{when}.next, %{when}.parts
  %{when}.is_room = icmp ult i64 %{when}.inside, %{when}.helpers
  %{when}.is_open_work = and i1 %{when}.is_open, %{when}.is_left
  %{when}.is_work = and i1 %{when}.is_open_work, %{when}.is_room
  br i1 %{when}.is_work, label %{found}, label %{nothing}"""
    return f"""define void @{name}(ptr %shared, i64 %helps) nounwind {{
{fields}
  %is_helper = icmp ne i64 %helps, 0
  br i1 %is_helper, label %awake, label %begin
begin:
  store atomic i64 0, ptr %next seq_cst, align 8
  store atomic i64 1, ptr %open seq_cst, align 8
  %wanted = load i64, ptr %helpers
  %post = load ptr, ptr %sem_post
  br label %wake
wake:
  %left = phi i64 [ %wanted, %begin ], [ %left, %take ], [ %fewer, %one ]
  %sleepers = load atomic i64, ptr %asleep seq_cst, align 8
  %fewest = call i64 @llvm.smin.i64(i64 %left, i64 %sleepers)
  %some = icmp sgt i64 %fewest, 0
  br i1 %some, label %take, label %caller.claim
take:
  %sleepers.less = sub i64 %sleepers, 1
  %taking = cmpxchg ptr %asleep, i64 %sleepers, i64 %sleepers.less seq_cst seq_cst
  %taken = extractvalue {{ i64, i1 }} %taking, 1
  br i1 %taken, label %one, label %wake
one:
  %posted = call i32 %post(ptr %semaphore)
  %fewer = sub i64 %left, 1
  br label %wake{claim.format(who="caller")}
caller.done:
  store atomic i64 0, ptr %open seq_cst, align 8
  %caller.yield = load ptr, ptr %sched_yield
  br label %drain
drain:
  %working = load atomic i64, ptr %inside seq_cst, align 8
  %is_empty = icmp eq i64 %working, 0
  br i1 %is_empty, label %return, label %again
again:
  %yielded = call i32 %caller.yield()
  br label %drain
awake:
  %looks = load i64, ptr %patience
  %yield = load ptr, ptr %sched_yield
  %wait = load ptr, ptr %sem_wait
  br label %turn
turn:
  %looked = phi i64 [ 0, %awake ], [ %following, %idle ]
  br label %watch{work.format(when="watch", stop="return", found="enter", nothing="idle")}
idle:
  %gave_way = call i32 %yield()
  %following = add i64 %looked, 1
  %patient = icmp ult i64 %following, %looks
  br i1 %patient, label %turn, label %rest
rest:
  %resting = atomicrmw add ptr %asleep, i64 1 seq_cst
  br label %last{work.format(when="last", stop="rise", found="rise", nothing="sleep")}
sleep:
  %waited = call i32 %wait(ptr %semaphore)
  %is_posted = icmp eq i32 %waited, 0
  br i1 %is_posted, label %awake, label %rise
rise:
  %others = load atomic i64, ptr %asleep seq_cst, align 8
  %is_counted = icmp sgt i64 %others, 0
  br i1 %is_counted, label %uncount, label %sleep
uncount:
  %others.less = sub i64 %others, 1
  %rising = cmpxchg ptr %asleep, i64 %others, i64 %others.less seq_cst seq_cst
  %risen = extractvalue {{ i64, i1 }} %rising, 1
  br i1 %risen, label %awake, label %rise
enter:
  %entered = atomicrmw add ptr %inside, i64 1 seq_cst
  %still = load atomic i64, ptr %open seq_cst, align 8
  %most = load atomic i64, ptr %helpers monotonic, align 8
  %is_still = icmp ne i64 %still, 0
  %is_among = icmp ult i64 %entered, %most
  %is_in = and i1 %is_still, %is_among
  br i1 %is_in, label %helper.claim, label %out{claim.format(who="helper")}
helper.done:
  %with_caller = atomicrmw sub ptr %inside, i64 1 seq_cst
  br label %awake
out:
  %without = atomicrmw sub ptr %inside, i64 1 seq_cst
  br label %idle
return:
  ret void
}}
declare i64 @llvm.smin.i64(i64, i64)
"""
