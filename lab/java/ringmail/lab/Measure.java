package ringmail.lab;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.ignite.client.ClientCache;

/**
 * Measures one kind of operation on keys that are there: each thread asks as soon as it was answered, first for a warm-up that
 * is not counted, then for a while that is.
 *
 * Every value read is compared with what was put: its length, and the key that it carries. Latencies are kept one by one, so
 * that percentiles are exact.
 */
final class Measure {
    /** What is measured. */
    private enum Operation { PUT, GET, MIXED }

    /** The values by their size: made once, so that no measurement pays for making them. */
    private static final Map<Integer, byte[][]> VALUES = new ConcurrentHashMap<>();

    private final ClientCache<Long, byte[]> cache;
    private final Operation operation;
    private final int threads;
    private final long from;
    private final byte[][] values;
    private final long warmNanos;
    private final long countedNanos;
    private final AtomicLong errors = new AtomicLong();
    private final AtomicReference<String> firstError = new AtomicReference<>("none");

    private Measure(ClientCache<Long, byte[]> cache, String[] args) {
        this.cache = cache;
        operation = Operation.valueOf(Control.argument(args, "op", "MIXED"));
        threads = Integer.parseInt(Control.argument(args, "threads", "1"));
        from = Long.parseLong(Control.argument(args, "from", "0"));
        int keys = Integer.parseInt(Control.argument(args, "keys", "1000"));
        int bytes = Integer.parseInt(Control.argument(args, "bytes", "100"));
        values = VALUES.computeIfAbsent(bytes, size -> make(from, keys, size));
        warmNanos = 1_000_000 * Long.parseLong(Control.argument(args, "warm_ms", "1000"));
        countedNanos = 1_000_000 * Long.parseLong(Control.argument(args, "counted_ms", "3000"));
    }

    /** {@code measure cache=c op=PUT|GET|MIXED threads=1 from=0 keys=1000 bytes=100 warm_ms=1000 counted_ms=3000} */
    static String run(ClientCache<Long, byte[]> cache, String[] args) throws InterruptedException {
        return new Measure(cache, args).run();
    }

    private String run() throws InterruptedException {
        CountDownLatch ready = new CountDownLatch(threads);
        CountDownLatch go = new CountDownLatch(1);
        AtomicLong begin = new AtomicLong();
        List<Worker> workers = new ArrayList<>();
        for (int thread = 0; thread < threads; thread++) {
            Worker worker = new Worker(thread, ready, go, begin);
            workers.add(worker);
            worker.start();
        }
        ready.await();
        begin.set(System.nanoTime());
        go.countDown();
        for (Worker worker : workers)
            worker.join();
        return answer(workers);
    }

    private String answer(List<Worker> workers) {
        long all = workers.stream().mapToLong(worker -> worker.all).sum();
        long[] nanos = workers.stream().flatMapToLong(worker -> Arrays.stream(worker.nanos, 0, worker.counted)).sorted().toArray();
        return "all=" + all + " counted=" + nanos.length + " counted_ms=" + countedNanos / 1_000_000
            + " p50_ns=" + percentile(nanos, 500) + " p99_ns=" + percentile(nanos, 990) + " p999_ns=" + percentile(nanos, 999)
            + " errors=" + errors + " first_error=" + firstError.get().replace(' ', '_').replace('\n', '_');
    }

    /** By nearest rank; 0 of nothing. */
    private static long percentile(long[] sorted, int perMille) {
        if (sorted.length == 0)
            return 0;
        long rank = (sorted.length * (long)perMille + 999) / 1000;
        return sorted[(int)Math.max(0, rank - 1)];
    }

    private static byte[][] make(long from, int keys, int bytes) {
        byte[][] made = new byte[keys][];
        for (int slot = 0; slot < keys; slot++)
            made[slot] = Value.of(from + slot, 1, bytes);
        return made;
    }

    /** One thread of the load. */
    private final class Worker extends Thread {
        private final CountDownLatch ready;
        private final CountDownLatch go;
        private final AtomicLong begin;
        private final SplittableRandom random;
        private long[] nanos = new long[1 << 16];
        private int counted;
        private long all;

        private Worker(int number, CountDownLatch ready, CountDownLatch go, AtomicLong begin) {
            super("measure-" + number);
            this.ready = ready;
            this.go = go;
            this.begin = begin;
            random = new SplittableRandom(number);
        }

        @Override public void run() {
            ready.countDown();
            try {
                go.await();
            } catch (InterruptedException e) {
                return;
            }
            long countFrom = begin.get() + warmNanos;
            long end = countFrom + countedNanos;
            for (long now = System.nanoTime(); now < end; ) {
                boolean held = operate();
                long after = System.nanoTime();
                if (held) {
                    all++;
                    if (now >= countFrom && after <= end)
                        keep(after - now);
                }
                now = after;
            }
        }

        private boolean operate() {
            int slot = random.nextInt(values.length);
            boolean puts = operation == Operation.PUT || operation == Operation.MIXED && random.nextBoolean();
            try {
                if (puts)
                    cache.put(from + slot, values[slot]);
                else
                    check(slot, cache.get(from + slot));
                return true;
            } catch (RuntimeException e) {
                errors.incrementAndGet();
                if (firstError.compareAndSet("none", e.toString()))
                    e.printStackTrace();
                return false;
            }
        }

        private void check(int slot, byte[] read) {
            if (read == null || read.length != values[slot].length || !Arrays.equals(read, 0, Long.BYTES, values[slot], 0, Long.BYTES))
                throw new IllegalStateException("key " + (from + slot) + " has another value than was put");
        }

        private void keep(long taken) {
            if (counted == nanos.length)
                nanos = Arrays.copyOf(nanos, 2 * counted);
            nanos[counted++] = taken;
        }
    }
}
