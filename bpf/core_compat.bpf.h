/*
 * Every difference between kernel versions and architectures that the programs care for, each with
 * its reason.
 */
#ifndef SPANLOOM_CORE_COMPAT_BPF_H
#define SPANLOOM_CORE_COMPAT_BPF_H

#include "kernel_types.bpf.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

/* A local flavour of the kernel's enum: only whether the value exists is asked. */
enum bpf_func_id___task_pt_regs {
	BPF_FUNC_task_pt_regs___task_pt_regs = 175,
};

/*
 * The user registers of the current system call. bpf_task_pt_regs() came with 5.15; before that
 * they lie at the top of the kernel stack: THREAD_SIZE is 16 KiB on x86-64 (without KASAN), with no
 * padding above them.
 */
static __always_inline const struct pt_regs *syscall_regs(void)
{
	enum { X86_THREAD_SIZE = 16384, X86_PT_REGS_SIZE = 168 };
	struct task_struct *task;

	if (bpf_core_enum_value_exists(enum bpf_func_id___task_pt_regs,
				       BPF_FUNC_task_pt_regs___task_pt_regs))
		return (const struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
	task = (struct task_struct *)bpf_get_current_task();
	return (const struct pt_regs *)((char *)BPF_CORE_READ(task, stack) + X86_THREAD_SIZE -
					X86_PT_REGS_SIZE);
}

/*
 * The running task, and a field of what it leads to. A program that traces reads them in place. One
 * of the network (it defines PROGRAM_OF_NETWORK) has no pointer to do so on all kernels, and has
 * each word copied, which costs some 40 ns.
 */
#ifdef PROGRAM_OF_NETWORK
#define current_task() ((const struct task_struct *)bpf_get_current_task())
#define field_of(pointer, field) BPF_CORE_READ(pointer, field)
#else
#define current_task() bpf_get_current_task_btf()
#define field_of(pointer, field) ((pointer)->field)
#endif

/* Where the current thread's own memory begins: what the C library's per-thread data is found by.
 */
static __always_inline u64 thread_pointer(void)
{
#if defined(__TARGET_ARCH_arm64)
	return field_of(current_task(), thread.uw.tp_value);
#else
	return field_of(current_task(), thread.fsbase);
#endif
}

/* What tells the memory of the running process from that of all others, as far as 32 bits do. */
static __always_inline u32 current_memory(void)
{
	const struct mm_struct *mm = field_of(current_task(), mm);

	return mm ? field_of(mm, context.ctx_id) : 0; /* x86-64 */
}

/* What a probe in user space finds in the registers, by the x86-64 calling convention (System V).
 */
static __always_inline u64 probe_first_argument(const struct pt_regs *regs)
{
	return regs->di;
}

static __always_inline u64 probe_second_argument(const struct pt_regs *regs)
{
	return regs->si;
}

static __always_inline u64 probe_result(const struct pt_regs *regs)
{
	return regs->ax;
}

/* A register that calls keep. */
static __always_inline u64 probe_rbx(const struct pt_regs *regs)
{
	return regs->bx;
}

static __always_inline u64 probe_stack(const struct pt_regs *regs)
{
	return regs->sp;
}

#endif
