package ringmail.lab;

import java.nio.ByteBuffer;
import java.util.SplittableRandom;
import java.util.zip.CRC32C;

/** Values that carry their key, a version and a checksum: what comes back tells whether it is what was put, and when. */
final class Value {
    /** Key, version, checksum. */
    private static final int HEADER = 24;

    private Value() {
    }

    /** A value of {@code bytes} bytes, at least the header's 24; the filler does not compress. */
    static byte[] of(long key, long version, int bytes) {
        byte[] value = new byte[Math.max(HEADER, bytes)];
        new SplittableRandom(key * 31 + version).nextBytes(value);
        ByteBuffer.wrap(value).putLong(key).putLong(version).putLong(0);
        ByteBuffer.wrap(value).putLong(16, checksum(value));
        return value;
    }

    /** The version in a value that is whole and belongs to the key, else -1. */
    static long version(long key, byte[] value) {
        if (value.length < HEADER)
            return -1;
        ByteBuffer read = ByteBuffer.wrap(value.clone());
        long sum = read.getLong(16);
        read.putLong(16, 0);
        return read.getLong(0) == key && checksum(read.array()) == sum ? read.getLong(8) : -1;
    }

    private static long checksum(byte[] value) {
        CRC32C crc = new CRC32C();
        crc.update(value);
        return crc.getValue();
    }
}
