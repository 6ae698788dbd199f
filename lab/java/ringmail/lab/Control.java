package ringmail.lab;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/**
 * The line protocol between the lab and its JVMs.
 *
 * A request is {@code <id> <verb> <argument>...} on stdin; its answer is {@code REPLY <id> OK|ERROR <text>} on stdout.
 * Stdout carries nothing else than answers and events; whatever else prints goes to stderr, which is the log.
 * The end of stdin means that the lab is gone: the JVM ends at once, so that no node outlives its test.
 */
final class Control {
    /** What a request runs. */
    interface Verb {
        String run(String[] args) throws Exception;
    }

    private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

    private Control() {
    }

    /** Keeps stdout for the protocol. To be called before anything else prints. */
    static void reserveStdout() {
        System.setOut(System.err);
    }

    /** Prints one event, stamped with the wall clock in milliseconds. */
    static void event(long millis, String text) {
        OUT.println("EVENT " + millis + " " + text);
    }

    /** Serves requests until stdin ends, each on a thread of its own: a slow one holds up none of the others. */
    static void serve(Map<String, Verb> verbs) throws IOException {
        ExecutorService threads = Executors.newCachedThreadPool();
        BufferedReader requests = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));

        for (String line; (line = requests.readLine()) != null; ) {
            String[] words = line.trim().split(" ");
            threads.execute(() -> answer(verbs, words));
        }
        Runtime.getRuntime().halt(3);
    }

    /** Reads {@code key=value} arguments. */
    static String argument(String[] args, String key, String fallback) {
        for (String arg : args) {
            if (arg.startsWith(key + "="))
                return arg.substring(key.length() + 1);
        }
        return fallback;
    }

    private static void answer(Map<String, Verb> verbs, String[] words) {
        String verdict;
        try {
            Verb verb = verbs.get(words[1]);
            if (verb == null)
                throw new IllegalArgumentException("unknown verb " + words[1]);
            verdict = "OK " + verb.run(java.util.Arrays.copyOfRange(words, 2, words.length));
        } catch (Throwable e) {
            e.printStackTrace();
            verdict = "ERROR " + e.toString().replace('\n', ' ');
        }
        OUT.println("REPLY " + words[0] + " " + verdict);
    }
}
